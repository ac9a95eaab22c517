package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// echo returns its input.
func echo() *engine.Job[string, string] {
	return engine.NewJob("echo", func(_ context.Context, s string) (string, error) { return s, nil })
}

// A large input reaches the handler, and a large result whoever waits for it or asks.
// Lists tell their size.
func TestLargeValues(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		want := strings.Repeat("é", 5<<20)
		h, err := echo().Submit(t.Context(), p.Engine, want)
		if err != nil {
			t.Fatal(err)
		}
		p.run(engine.WorkerOptions{}, echo())
		if got, err := h.Wait(t.Context()); err != nil || got != want {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		info, err := h.Get(t.Context())
		if err != nil || len(info.Input) != len(want)+2 || len(info.Result) != len(want)+2 {
			t.Errorf("the input has %d bytes, the result %d, %v", len(info.Input), len(info.Result), err)
		}
		list, err := p.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Input != nil || list[0].Result != nil ||
			list[0].InputBlob.Size != len(want)+2 || list[0].ResultBlob.Size != len(want)+2 {
			t.Errorf("listed %+v, %v", list, err)
		}
	})
}

// An input that was deleted behind everybody's back fails the job for good.
func TestLargeInputLost(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		h, err := echo().Submit(t.Context(), p.Engine, strings.Repeat("x", 40<<10))
		if err != nil {
			t.Fatal(err)
		}
		purgeStream(t, p, "OBJ_mr_default_blobs")
		p.run(engine.WorkerOptions{}, echo())
		_, err = h.Wait(t.Context())
		failed := new(engine.JobError)
		if !errors.As(err, &failed) || failed.Code != "fail" || !strings.Contains(failed.Message, "its input is lost: submit the job again") {
			t.Errorf("got %v", err)
		}
	})
}

// A result that was deleted behind everybody's back is an error for whoever waits, and
// the job can be read all the same.
func TestLargeResultLost(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, echo())
		h, err := echo().Submit(t.Context(), p.Engine, strings.Repeat("x", 40<<10))
		if err != nil {
			t.Fatal(err)
		}
		ended(t, p.Engine, h.ID, "succeeded", 1, 0)
		purgeStream(t, p, "OBJ_mr_default_blobs")
		if got, err := h.Wait(t.Context()); err == nil {
			t.Errorf("got %d bytes", len(got))
		}
		if info, err := h.Get(t.Context()); err != nil || info.State != "succeeded" || info.Result != nil || info.ResultBlob == nil {
			t.Errorf("got %+v, %v", info, err)
		}
	})
}

func purgeStream(t *testing.T, p *process, name string) {
	t.Helper()
	if _, err := p.nc.Request("$JS.API.STREAM.PURGE."+name, nil, time.Second); err != nil {
		t.Fatal(err)
	}
}

// Whoever reads that a job has ended, and not its result any more because it is redriven,
// waits for its next end.
func TestLargeResultRedriven(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("echo", func(ctx context.Context, _ any) (string, error) {
			return strings.Repeat(fmt.Sprint(engine.JobFrom(ctx).Attempt), 40_000), nil
		}))
		submit(t, p.Engine, "echo", 1)
		ended(t, p.Engine, "echo.1", "succeeded", 1, 0)
		reads := 0
		q := start(t, srv, "b", func(natstest.Write) natstest.Fault {
			if reads++; reads == 1 {
				return natstest.Hold
			}
			return natstest.Pass
		}, "$JS.API.STREAM.MSG.GET.OBJ_mr_default_blobs")
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			info, err := q.Wait(t.Context(), "echo.1")
			if err != nil || info.Attempt != 2 || !strings.HasPrefix(string(info.Result), `"22`) {
				t.Errorf("got %.9s of attempt %d, %v, want that of the second", info.Result, info.Attempt, err)
			}
		}()
		synctest.Wait()
		if _, err := p.Retry(t.Context(), "echo.1"); err != nil {
			t.Error(err)
		}
		q.link.Release()
		<-waited
	})
}

// A worker that cannot fetch an input because NATS is away tries again, or hands the
// job back: that is no failure.
func TestLargeInputOutage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", func(w natstest.Write) natstest.Fault {
			if w.Number <= 2 {
				return natstest.DownBefore
			}
			return natstest.Pass
		}, "$JS.API.DIRECT.GET.OBJ_mr_default_blobs")
		b := start(t, srv, "b", nil)
		h, err := echo().Submit(t.Context(), b.Engine, strings.Repeat("x", 40<<10))
		if err != nil {
			t.Fatal(err)
		}
		p.run(engine.WorkerOptions{}, echo())
		for range 10 {
			time.Sleep(4 * p.Lease())
			p.link.Up()
		}
		if _, err := b.Engine.Wait(t.Context(), h.ID); err != nil {
			t.Fatal(err)
		}
		info, err := b.Engine.Get(t.Context(), h.ID)
		if err != nil || info.State != "succeeded" {
			t.Errorf("got %s, %v", info.State, err)
		}
		for _, a := range info.Attempts {
			if a.Outcome == "failed" {
				t.Errorf("an attempt failed: %+v", a)
			}
		}
	})
}

// Many jobs at once, small ones, large ones and some with a unique key, are there
// once.
func TestSubmitManyOfAllSorts(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		var jobs []engine.Submission[string]
		for i := range 60 {
			s := engine.Submission[string]{Input: strings.Repeat("x", 1+i%3*(20<<10))}
			if i%4 == 0 {
				s.Options.Unique = engine.Unique{Key: fmt.Sprint(i % 8)}
			}
			jobs = append(jobs, s)
		}
		handles, err := echo().SubmitMany(t.Context(), p.Engine, slices.Values(jobs))
		if err != nil {
			t.Fatal(err)
		}
		created, ids := 0, map[string]bool{}
		for _, h := range handles {
			if ids[h.ID] = true; h.Created {
				created++
			}
		}
		if created != 47 || len(ids) != 47 { // 45 and one for each key
			t.Errorf("created %d of %d jobs, want 47", created, len(ids))
		}
		p.run(engine.WorkerOptions{}, echo())
		for i, h := range handles {
			if out, err := h.Wait(t.Context()); err != nil || i%4 != 0 && out != jobs[i].Input {
				t.Errorf("job %d: got %d bytes, %v", i, len(out), err)
			}
		}
	})
}

// Whoever submits a key that is held gets a handle on the job that holds it.
func TestSubmitUnique(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		opts := engine.SubmitOptions{Unique: engine.Unique{Key: "a key, with spaces", Period: time.Hour}}
		first, err := p.Submit(t.Context(), "echo", json.RawMessage(`"x"`), opts)
		if err != nil || !first.Created {
			t.Fatalf("created %v, %v", first, err)
		}
		p.run(engine.WorkerOptions{}, echo())
		if _, err := first.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		second, err := p.Submit(t.Context(), "echo", json.RawMessage(`"y"`), opts)
		if err != nil || second.Created || second.ID != first.ID {
			t.Errorf("got %+v, %v, want %s", second, err, first.ID)
		}
		info, err := second.Get(t.Context())
		if err != nil || info.Unique == nil || info.Unique.Key != "a key, with spaces" || info.Unique.Scope != "period" || info.Unique.Until == nil {
			t.Errorf("got %+v, %v", info.Unique, err)
		}
	})
}

// A worker that may not use the object store cannot store a large result, ever: the
// job fails, and says why.
func TestLargeResultDenied(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		srv, err := server.NewServer(&server.Options{
			DontListen: true, JetStream: true, NoLog: true, NoSigs: true, StoreDir: t.TempDir(),
			Users: []*server.User{{Username: "admin", Password: "x"}, {Username: "worker", Password: "x", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"$O.>"}},
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		as := func(user string) *engine.Engine {
			nc := natstest.Connect(t, srv, append(engine.ConnectOptions(), nats.UserInfo(user, "x"))...)
			eng, err := engine.Connect(t.Context(), nc, engine.Options{Logger: voice(t)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(eng.Close)
			return eng
		}
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		admin := as("admin")
		job := engine.NewJob("job", func(context.Context, any) (string, error) { return strings.Repeat("x", 40<<10), nil })
		worker, err := as("worker").Worker(engine.WorkerOptions{}, job)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := worker.Run(ctx); err != nil {
				t.Errorf("the worker ended: %v", err)
			}
		})
		submit(t, admin, "job", 1)
		info := ended(t, admin, "job.1", "failed", 1, 1)
		if info.Error == nil || info.Error.Code != "denied" || !strings.Contains(info.Error.Message, "may not use the object store") {
			t.Errorf("got %+v", info.Error)
		}
		stop()
		running.Wait()
	})
}
