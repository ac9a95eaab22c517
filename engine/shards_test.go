package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// importer is a job whose shards say what they are.
func importer(seen *ledger) *engine.Job[string, string] {
	return engine.NewJob("import", func(ctx context.Context, table string) (string, error) {
		defer seen.enter(ctx)()
		time.Sleep(10 * time.Second)
		j := engine.JobFrom(ctx)
		return fmt.Sprintf("%s %d/%d %s", table, j.Shard.Index, j.Shard.Total, j.Shard.Parameter), nil
	})
}

// nodesOf returns the nodes of shards, by number.
func nodesOf(parts []engine.PartInfo) []string {
	list := make([]string, len(parts))
	for i, p := range parts {
		list[i] = p.Node
	}
	return list
}

// Each shard runs once, with its number and its parameter; all results come in order,
// and the next run has the shards where they were.
func TestShards(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		seen := newLedger()
		job := importer(seen)
		all := stations(t, srv, map[string]string{"a": "", "b": "", "c": ""}, job)
		eng := all["a"].Engine
		o := engine.ShardOptions{ID: "1", Parameters: []string{"x", "y", "", "z", "é", "="}}
		sent, err := job.SubmitShards(t.Context(), eng, "rows", o)
		if err != nil || sent.ID != "import.1" || !sent.Created {
			t.Fatalf("got %+v, %v", sent, err)
		}
		results, err := sent.Wait(soon(t))
		want := []string{"rows 0/6 x", "rows 1/6 y", "rows 2/6 ", "rows 3/6 z", "rows 4/6 é", "rows 5/6 ="}
		if diff := cmp.Diff(want, results); diff != "" || err != nil {
			t.Fatalf("%v (-want +got):\n%s", err, diff)
		}
		info, err := sent.Get(t.Context())
		if err != nil || info.Children.Succeeded != 6 || !info.Children.Shards || *info.Parts[3].Shard != 3 || info.Parts[3].Parameter != "z" {
			t.Errorf("got %+v, %v", info, err)
		}
		places := nodesOf(info.Parts)
		for i, node := range places {
			if got := seen.started(engine.PartID(sent.ID, fmt.Sprint(i))); !slices.Equal(got, []string{node}) {
				t.Errorf("shard %d ran on %v, want %s", i, got, node)
			}
		}
		if again, err := job.SubmitShards(t.Context(), eng, "rows", o); err != nil || again.Created {
			t.Errorf("submitted again: %+v, %v", again, err)
		}

		newStation(t, srv, "0", "", job)
		time.Sleep(time.Second)
		o.ID = "2"
		next, err := job.SubmitShards(t.Context(), all["b"].Engine, "rows", o)
		if err != nil {
			t.Fatal(err)
		}
		info, err = next.Get(t.Context())
		moved := 0
		for i, node := range nodesOf(info.Parts) {
			if node != places[i] {
				moved++
			}
		}
		if err != nil || moved > 2 {
			t.Errorf("%d shards moved when a fourth node came: from %v to %v, %v", moved, places, nodesOf(info.Parts), err)
		}
	})
}

// A shard whose node goes moves to another, and runs to its end there; while nobody
// is there it waits.
func TestShardsMove(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		seen := newLedger()
		job := importer(seen)
		all := stations(t, srv, map[string]string{"a": "", "b": ""}, job)
		client := start(t, srv, "client", nil)
		serve(t, client.Engine)
		time.Sleep(10 * time.Second)
		sent, err := job.SubmitShards(t.Context(), client.Engine, "rows", engine.ShardOptions{Shards: 4})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		all["b"].link.Down() // for good
		began := time.Now()
		results, err := sent.Wait(soon(t))
		if err != nil || len(results) != 4 || time.Since(began) > 40*time.Second {
			t.Errorf("got %v, %v after %v", results, err, time.Since(began))
		}
		if diff := cmp.Diff([]string{"a", "a", "a", "a"}, nodesOf(broadcastOf(t, client.Engine, sent.ID).Parts)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := all["a"].stop(); err != nil {
			t.Fatal(err)
		}
		late, err := job.SubmitShards(t.Context(), client.Engine, "rows", engine.ShardOptions{Shards: 2})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		newStation(t, srv, "c", "", job)
		if results, err := late.Wait(soon(t)); err != nil || len(results) != 2 {
			t.Errorf("got %v, %v", results, err)
		}
	})
}

// A shard that fails for good fails the job, which says which one.
func TestShardsFail(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", func(ctx context.Context, _ int) (int, error) {
			if s := engine.JobFrom(ctx).Shard; s.Index == 1 {
				return 0, errors.New("boom")
			}
			return 0, nil
		})
		eng := stations(t, srv, map[string]string{"a": "", "b": ""}, job)["a"].Engine
		sent, err := job.SubmitShards(t.Context(), eng, 1, engine.ShardOptions{Shards: 3, MaxAttempts: 2, Strategy: engine.ShardsHash})
		if err != nil {
			t.Fatal(err)
		}
		_, err = sent.Wait(soon(t))
		var failed *engine.JobError
		if !errors.As(err, &failed) || failed.State != "failed" || !strings.Contains(failed.Message, "1") {
			t.Errorf("got %v", err)
		}
		info := broadcastOf(t, eng, sent.ID)
		if got := len(info.Parts[1].Attempts); got != 2 || info.Parts[1].State != "failed" || info.Children.Succeeded != 2 {
			t.Errorf("%d attempts, %s, %d succeeded", got, info.Parts[1].State, info.Children.Succeeded)
		}
	})
}

// A sharded job that is not due yet keeps its parameters, and gets its places later.
func TestShardsLater(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := importer(newLedger())
		eng := stations(t, srv, map[string]string{"a": ""}, job)["a"].Engine
		sent, err := job.SubmitShards(t.Context(), eng, "rows", engine.ShardOptions{Parameters: []string{"x", "y"}, Strategy: engine.ShardsRoundRobin, Delay: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		if info := get(t, eng, sent.ID); info.State != "scheduled" || info.Children.Total != 2 {
			t.Errorf("got %s, %+v", info.State, info.Children)
		}
		newStation(t, srv, "b", "", job)
		time.Sleep(30 * time.Minute)
		results, err := sent.Wait(soon(t))
		if diff := cmp.Diff([]string{"rows 0/2 x", "rows 1/2 y"}, results); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		places := nodesOf(broadcastOf(t, eng, sent.ID).Parts)
		slices.Sort(places)
		if diff := cmp.Diff([]string{"a", "b"}, places); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
