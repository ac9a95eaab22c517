package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A station is a node that runs jobs, in a process of its own.
type station struct {
	*process
	stop func() error
}

// stations starts nodes with a label "zone", each with a worker that runs the
// definitions.
func stations(t testing.TB, srv *server.Server, zones map[string]string, defs ...engine.Definition) map[string]*station {
	t.Helper()
	all := map[string]*station{}
	for _, node := range slices.Sorted(maps.Keys(zones)) {
		all[node] = newStation(t, srv, node, zones[node], defs...)
	}
	time.Sleep(time.Second) // until the owner is there
	return all
}

func newStation(t testing.TB, srv *server.Server, node, zone string, defs ...engine.Definition) *station {
	t.Helper()
	p := &process{t: t, link: natstest.NewLink(t, srv, nil, jobWrites)}
	p.nc = p.link.Connect(t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	eng, err := engine.Connect(t.Context(), p.nc, engine.Options{
		Node: node, Labels: map[string]string{"zone": zone}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	p.Engine = eng
	return &station{process: p, stop: p.run(engine.WorkerOptions{}, defs...)}
}

// states returns the states of parts, by node.
func states(parts []engine.PartInfo) map[string]string {
	list := map[string]string{}
	for _, p := range parts {
		list[p.Node] = p.State
	}
	return list
}

// broadcastOf reads a broadcast.
func broadcastOf(t testing.TB, eng *engine.Engine, id string) engine.BroadcastInfo {
	t.Helper()
	info, err := eng.GetBroadcast(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// Every node that matches runs its part once, with the input of the broadcast, and
// says so in its part; the broadcast ends with them, and leaves nothing.
func TestBroadcast(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		seen := newLedger()
		job := engine.NewJob("cache.flush", func(ctx context.Context, what string) (string, error) {
			defer seen.enter(ctx)()
			time.Sleep(10 * time.Second)
			j := engine.JobFrom(ctx)
			return fmt.Sprintf("%s of %s flushed as part %s of %s", what, j.Node, j.Part, j.Parent), nil
		})
		all := stations(t, srv, map[string]string{"a1": "a", "a2": "a", "b1": "b"}, job)
		eng := all["a1"].Engine
		sent, err := job.Broadcast(t.Context(), eng, "prices", engine.BroadcastOptions{
			ID: "flush-1", Selector: map[string]string{"zone": "a"},
		})
		if err != nil || sent.ID != "cache.flush-1" || !sent.Created {
			t.Fatalf("got %+v, %v", sent, err)
		}
		time.Sleep(5 * time.Second)
		info, err := sent.Get(t.Context())
		if diff := cmp.Diff(map[string]string{"a1": "running", "a2": "running"}, states(info.Parts)); err != nil || diff != "" || info.State != "waiting" {
			t.Fatalf("%s, %v, in the middle (-want +got):\n%s", info.State, err, diff)
		}
		parts, err := sent.Wait(soon(t))
		if err != nil || len(parts) != 2 {
			t.Fatalf("got %v, %v, want two parts", parts, err)
		}
		for i, node := range []string{"a1", "a2"} {
			p := parts[i]
			want := "prices of " + node + " flushed as part " + node + " of cache.flush-1"
			if p.Node != node || p.State != "succeeded" || p.Value != want || p.Incarnation == 0 || len(p.Attempts) != 1 || p.Ended == nil {
				t.Errorf("part %d: %+v, want %q", i, p, want)
			}
			id := engine.PartID(sent.ID, node)
			child := get(t, eng, id)
			if child.Parent == nil || *child.Parent != sent.ID || *child.Part != node || child.Pin.Node != node || child.Pin.Selector != nil {
				t.Errorf("job %s: parent %v, pin %+v", id, child.Parent, child.Pin)
			}
			if got := seen.started(id); !slices.Equal(got, []string{node}) {
				t.Errorf("%s started on %v", id, got)
			}
		}
		info = broadcastOf(t, eng, sent.ID)
		want := &engine.ChildrenInfo{Total: 2, OnLost: "fail", Done: "all", Selector: map[string]string{"zone": "a"}, Succeeded: 2}
		if diff := cmp.Diff(want, info.Children); diff != "" || info.State != "succeeded" || string(info.Input) != `"prices"` || info.Result != nil {
			t.Errorf("%s, input %s, result %s, children (-want +got):\n%s", info.State, info.Input, info.Result, diff)
		}
		time.Sleep(time.Minute)
		if left := streamInfo(t, all["a1"].nc, "mr_default_mail").State.Msgs; left != 0 {
			t.Errorf("%d messages are left in mailboxes", left)
		}
	})
}

// A broadcast attaches to the one that is there, whoever has come meanwhile, and is
// refused if the ID is that of something else.
func TestBroadcastAgain(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", sleeps)
		all := stations(t, srv, map[string]string{"a": "", "b": ""}, job)
		eng := all["a"].Engine
		for i := range 3 {
			sent, err := eng.Broadcast(t.Context(), "job", json.RawMessage("1"), engine.BroadcastOptions{ID: "x"})
			if err != nil || sent.Created != (i == 0) {
				t.Fatalf("broadcast %d: %+v, %v", i, sent, err)
			}
			time.Sleep(2 * time.Minute)
			for _, s := range all {
				if i == 1 {
					_ = s.stop() // nobody is left: attach all the same
				}
			}
		}
		if info := broadcastOf(t, eng, "job.x"); info.State != "succeeded" || len(info.Parts) != 2 || info.Started == nil || !info.Started.Equal(*info.Created) {
			t.Errorf("got %s with %d parts, created at %v, started at %v", info.State, len(info.Parts), info.Created, info.Started)
		}
		_, err := eng.SubmitShards(t.Context(), "job", nil, engine.ShardOptions{ID: "x", Shards: 2})
		refused(t, err, "there is a job of that ID, and it is a broadcast")
		_, err = eng.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "x"})
		refused(t, err, "there is a job of that ID, and it is a broadcast: choose another ID")
		_, err = job.SubmitMany(t.Context(), eng, slices.Values([]engine.Submission[any]{{Options: engine.SubmitOptions{ID: "x"}}}))
		refused(t, err, "there is a job of that ID, and it is a broadcast: choose another ID")
		submit(t, eng, "job", 1)
		_, err = eng.Broadcast(t.Context(), "job", nil, engine.BroadcastOptions{ID: "1"})
		refused(t, err, "there is a job of that ID, and it is neither a broadcast nor a sharded job")
		_, err = eng.GetBroadcast(t.Context(), "job.1")
		refused(t, err, "is neither a broadcast nor a sharded job: get it as a job")
	})
}

// What is wrong with a broadcast is said in one line, before anything is stored.
func TestBroadcastRefused(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", sleeps)
		eng := stations(t, srv, map[string]string{"a": "x"}, job)["a"].Engine
		for want, o := range map[string]engine.BroadcastOptions{
			`done at "most": use all, quorum, any or a number`: {Done: "most"},
			`done at "0": use`:                                    {Done: engine.DoneCount(0)},
			`done at "+1": use`:                                   {Done: "+1"},
			`2 parts have succeeded, and 1 nodes match`:           {Done: engine.DoneCount(2)},
			`on lost it is to "any": use fail or wait`:            {OnLost: "any"},
			`it has no deadline: set one, or let them fail`:       {OnLost: engine.LostWaits},
			`max parallel is -1`:                                  {MaxParallel: -1},
			`max attempts is -1`:                                  {MaxAttempts: -1},
			`no node with labels zone=y that runs job from queue`: {Selector: map[string]string{"zone": "y"}},
			`that runs job from queue other`:                      {Queue: "other"},
			`a label is "=y"`:                                     {Selector: map[string]string{"": "y"}},
			`both a delay and a time`:                             {Delay: time.Second, At: time.Now().Add(time.Hour)},
			`ID "a.b" contains '.'`:                               {ID: "a.b"},
		} {
			_, err := job.Broadcast(t.Context(), eng, 1, o)
			refused(t, err, want)
		}
		_, err := eng.Broadcast(t.Context(), "other", nil)
		refused(t, err, "there is no node that runs other from queue other")
		for want, o := range map[string]engine.ShardOptions{
			"it has 0 shards":               {},
			"it has 1025 shards":            {Shards: 1025},
			"it has 3 shards and 2 param":   {Shards: 3, Parameters: []string{"a", "b"}},
			`its strategy is "odd": use`:    {Shards: 3, Strategy: "odd"},
			"parameter of shard 1 has 1025": {Parameters: []string{"", strings.Repeat("x", 1025)}},
		} {
			_, err := job.SubmitShards(t.Context(), eng, 1, o)
			refused(t, err, want)
		}
		if list, err := eng.List(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("got %d jobs, %v, want none", len(list), err)
		}
	})
}

// A part that fails is tried again on its node and no other, and the broadcast says
// whose part did not succeed.
func TestBroadcastFails(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		seen := newLedger()
		job := engine.NewJob("job", func(ctx context.Context, _ int) (int, error) {
			defer seen.enter(ctx)()
			if j := engine.JobFrom(ctx); j.Node == "b" || j.Attempt == 1 {
				return 0, errors.New("the disk is full")
			}
			return 7, nil
		})
		all := stations(t, srv, map[string]string{"a": "", "b": "", "c": ""}, job)
		for done, want := range map[engine.Done]string{
			"": "failed", engine.DoneQuorum: "succeeded", engine.DoneAny: "succeeded", engine.DoneCount(2): "succeeded", engine.DoneCount(3): "failed",
		} {
			sent, err := job.Broadcast(t.Context(), all["a"].Engine, 1, engine.BroadcastOptions{Done: done, MaxAttempts: 3})
			if err != nil {
				t.Fatal(err)
			}
			parts, err := sent.Wait(soon(t))
			var failure *engine.JobError
			if failed := errors.As(err, &failure); failed != (want == "failed") || failed && !strings.Contains(failure.Message, "b") {
				t.Errorf("%s: got %v, want %s", done, err, want)
			}
			time.Sleep(time.Minute)
			if len(parts) != 3 {
				t.Fatalf("%s: got %d parts", done, len(parts))
			}
			info := broadcastOf(t, all["a"].Engine, sent.ID)
			if info.State != want {
				t.Errorf("%s: the broadcast %s, want %s", done, info.State, want)
			}
			for _, p := range info.Parts {
				for _, node := range seen.started(engine.PartID(sent.ID, p.Node)) {
					if node != p.Node {
						t.Errorf("%s: the part of %s ran on %s", done, p.Node, node)
					}
				}
			}
			if done == "" {
				want := map[string]string{"a": "succeeded", "b": "failed", "c": "succeeded"}
				if diff := cmp.Diff(want, states(info.Parts)); diff != "" || len(info.Parts[1].Attempts) != 3 || len(info.Parts[0].Attempts) != 2 {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		}
	})
}

// A broadcast that is not due yet goes to the nodes that are there when it is, and
// fails if there are none.
func TestBroadcastLater(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", sleeps)
		all := stations(t, srv, map[string]string{"a": "", "b": ""}, job)
		eng := all["a"].Engine
		sent, err := job.Broadcast(t.Context(), eng, 1, engine.BroadcastOptions{Delay: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		nobody, err := job.Broadcast(t.Context(), eng, 1, engine.BroadcastOptions{At: time.Now().Add(time.Hour), Selector: map[string]string{"zone": "y"}})
		if err != nil {
			t.Fatal(err)
		}
		due := time.Now().Add(time.Hour)
		if info := broadcastOf(t, eng, sent.ID); info.State != "scheduled" || info.Parts != nil || info.Due == nil || info.Started != nil {
			t.Errorf("got %s, parts %v, due %v, started %v", info.State, info.Parts, info.Due, info.Started)
		}
		time.Sleep(30 * time.Minute)
		newStation(t, srv, "c", "", job)
		if err := all["b"].stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*time.Minute + 2*time.Second)
		want := map[string]string{"a": "running", "c": "running"}
		if diff := cmp.Diff(want, states(broadcastOf(t, eng, sent.ID).Parts)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if at := broadcastOf(t, eng, sent.ID).Started; at == nil || at.Sub(due).Abs() > 2*time.Second {
			t.Errorf("it started at %v, and was due at %v", at, due)
		}
		_, err = nobody.Wait(soon(t))
		refused(t, err, "no node was there when it was due")
		if parts, err := sent.Wait(soon(t)); err != nil || len(parts) != 2 {
			t.Errorf("got %v, %v", parts, err)
		}
	})
}

// Rolling, no more nodes are at it than allowed, and after a failure nobody begins.
func TestBroadcastRolls(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		seen := newLedger()
		bad := ""
		job := engine.NewJob("job", func(ctx context.Context, _ int) (int, error) {
			defer seen.enter(ctx)()
			time.Sleep(10 * time.Second)
			if engine.JobFrom(ctx).Node == bad {
				return 0, engine.Fail(errors.New("boom"))
			}
			return 0, nil
		})
		nodes := map[string]string{"a": "", "b": "", "c": "", "d": "", "e": ""}
		eng := stations(t, srv, nodes, job)["a"].Engine
		roll := func() []engine.PartInfo {
			began := time.Now()
			sent, err := job.Broadcast(t.Context(), eng, 1, engine.BroadcastOptions{MaxParallel: 2, MaxAttempts: 1})
			if err != nil {
				t.Fatal(err)
			}
			_, err = sent.Wait(soon(t))
			if took := time.Since(began); (err == nil) != (bad == "") || took > 40*time.Second {
				t.Errorf("with bad %q: %v after %v", bad, err, took)
			}
			return broadcastOf(t, eng, sent.ID).Parts
		}
		if parts := roll(); len(parts) != 5 || seen.most > 2 {
			t.Errorf("%d parts, %d at a time, want 5 and 2", len(parts), seen.most)
		}
		bad = "b"
		want := map[string]string{"a": "succeeded", "b": "failed", "c": "succeeded", "d": "cancelled", "e": "cancelled"}
		got := states(roll())
		if got["c"] == "cancelled" { // a and b end in any order: c begins when a has ended first
			want["c"] = "cancelled"
		}
		if diff := cmp.Diff(want, got); diff != "" || seen.most > 2 {
			t.Errorf("%d at a time (-want +got):\n%s", seen.most, diff)
		}
	})
}

// Who cancels a broadcast cancels its parts; one that is over its deadline fails, and
// what is left of it is cancelled.
func TestBroadcastEndsEarly(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", func(ctx context.Context, _ int) (int, error) {
			if engine.JobFrom(ctx).Node == "a" {
				return 1, nil
			}
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		all := stations(t, srv, map[string]string{"a": "", "b": ""}, job)
		eng := all["a"].Engine
		for how, want := range map[string]string{"cancel": "cancelled", "deadline": "failed"} {
			o := engine.BroadcastOptions{}
			if how == "deadline" {
				o.Deadline = 10 * time.Second
			}
			sent, err := job.Broadcast(t.Context(), eng, 1, o)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			if how == "cancel" {
				if err := eng.Delete(t.Context(), sent.ID); !errors.Is(err, engine.ErrNotEnded) {
					t.Errorf("deleted in the middle: %v", err)
				}
				if info, err := eng.Cancel(t.Context(), sent.ID); err != nil || info.State != "cancelled" {
					t.Fatalf("got %s, %v", info.State, err)
				}
			}
			time.Sleep(10 * time.Second)
			info := broadcastOf(t, eng, sent.ID)
			diff := cmp.Diff(map[string]string{"a": "succeeded", "b": "cancelled"}, states(info.Parts))
			if info.State != want || diff != "" {
				t.Errorf("%s: the broadcast is %s, want %s; parts (-want +got):\n%s", how, info.State, want, diff)
			}
			if err := eng.Delete(t.Context(), sent.ID); err != nil {
				t.Errorf("%s: %v", how, err)
			}
		}
		if left := streamInfo(t, all["a"].nc, "KV_mr_default_jobs").State.Msgs; left != 0 {
			t.Errorf("%d records are left of two that were deleted", left)
		}
	})
}

// A broadcast that is retried runs again where it did not succeed, and nowhere else.
func TestBroadcastRetried(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		seen := newLedger()
		broken := true
		job := engine.NewJob("job", func(ctx context.Context, _ int) (string, error) {
			defer seen.enter(ctx)()
			if engine.JobFrom(ctx).Node == "b" && broken {
				return "", engine.Fail(errors.New("boom"))
			}
			return "done", nil
		})
		eng := stations(t, srv, map[string]string{"a": "", "b": ""}, job)["a"].Engine
		sent, err := job.Broadcast(t.Context(), eng, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = sent.Wait(soon(t))
		refused(t, err, "b")
		broken = false
		_, err = eng.Retry(t.Context(), engine.PartID(sent.ID, "b"))
		refused(t, err, "retry")
		if info, err := eng.Retry(t.Context(), sent.ID); err != nil || info.State != "waiting" {
			t.Fatalf("got %s, %v", info.State, err)
		}
		parts, err := sent.Wait(soon(t))
		if err != nil || parts[0].Value != "done" || parts[1].Value != "done" {
			t.Errorf("got %+v, %v", parts, err)
		}
		for node, want := range map[string]int{"a": 1, "b": 2} {
			if got := len(seen.started(engine.PartID(sent.ID, node))); got != want {
				t.Errorf("%s ran it %d times, want %d", node, got, want)
			}
		}
	})
}

// Nobody who waits depends on being told: the end of a broadcast whose announcements
// are lost, those of its parts included, is known all the same.
func TestBroadcastHearsNothing(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", sleeps)
		owner := start(t, srv, "owner", func(natstest.Write) natstest.Fault { return natstest.Hold }, "mr.default.ended.>")
		serve(t, owner.Engine)
		for _, node := range []string{"a", "b"} {
			p := start(t, srv, node, func(natstest.Write) natstest.Fault { return natstest.Hold }, "mr.default.ended.>", "mr.default.ctl.owner.part")
			p.run(engine.WorkerOptions{NoOwner: true}, job)
		}
		time.Sleep(10 * time.Second)
		client := start(t, srv, "client", nil)
		sent, err := job.Broadcast(t.Context(), client.Engine, 1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // it takes one, and the looks of the owner and of the waiter
		defer cancel()
		if parts, err := sent.Wait(ctx); err != nil || len(parts) != 2 {
			t.Errorf("got %v, %v", parts, err)
		}
	})
}

// Large inputs and results of parts are fetched where they are.
func TestBroadcastLarge(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", func(ctx context.Context, in string) (string, error) {
			return engine.JobFrom(ctx).Node + in, nil
		})
		all := stations(t, srv, map[string]string{"a": "", "b": ""}, job)
		in := strings.Repeat("x", 100_000)
		sent, err := job.Broadcast(t.Context(), all["a"].Engine, in)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := sent.Wait(soon(t))
		if err != nil || len(parts) != 2 || parts[0].Value != "a"+in || parts[1].Value != "b"+in {
			t.Fatalf("got %d parts, %v", len(parts), err)
		}
		time.Sleep(time.Second)
		if err := all["b"].Delete(t.Context(), sent.ID); err != nil {
			t.Fatal(err)
		}
		for _, stream := range []string{"KV_mr_default_jobs", "OBJ_mr_default_blobs", "mr_default_mail", "mr_default_timers"} {
			if left := streamInfo(t, all["a"].nc, stream).State.Msgs; left != 0 {
				t.Errorf("%d messages are left in %s", left, stream)
			}
		}
	})
}

// Broadcasts lists broadcasts and nothing else, and jobs are listed by their parent.
func TestBroadcastList(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := engine.NewJob("job", func(context.Context, any) (any, error) { return nil, nil })
		eng := stations(t, srv, map[string]string{"a": "", "b": ""}, job)["a"].Engine
		submit(t, eng, "job", 2)
		for _, id := range []string{"x", "y"} {
			if _, err := job.Broadcast(t.Context(), eng, 1, engine.BroadcastOptions{ID: id}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		if _, err := job.SubmitShards(t.Context(), eng, 1, engine.ShardOptions{Shards: 2}); err != nil {
			t.Fatal(err)
		}
		list, err := eng.Broadcasts(t.Context(), engine.BroadcastFilter{Queue: "job", State: "succeeded"})
		if err != nil || len(list) != 2 || list[0].ID != "job.y" || list[1].ID != "job.x" || list[0].Children.Succeeded != 2 {
			t.Errorf("got %+v, %v", list, err)
		}
		if list, err := eng.Broadcasts(t.Context(), engine.BroadcastFilter{Limit: 1}); err != nil || len(list) != 1 {
			t.Errorf("got %d, %v, want 1", len(list), err)
		}
		parts, err := eng.List(t.Context(), engine.ListOptions{Parent: "job.x"})
		if err != nil || len(parts) != 2 || *parts[0].Parent != "job.x" {
			t.Errorf("got %+v, %v", parts, err)
		}
		_, err = eng.Broadcasts(t.Context(), engine.BroadcastFilter{State: "odd"})
		refused(t, err, `there is no state "odd"`)
		_, err = eng.List(t.Context(), engine.ListOptions{Parent: "odd"})
		refused(t, err, `has 0 dots`)
	})
}
