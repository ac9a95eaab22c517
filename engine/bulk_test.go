package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A job that failed is retried: whoever waits for it from then on hears of its
// second end.
func TestRedriveOne(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		job := engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			if engine.JobFrom(ctx).Attempt == 1 {
				return "", engine.Fail(errors.New("boom"))
			}
			return "done", nil
		})
		h, err := job.Submit(t.Context(), p.Engine, nil, engine.SubmitOptions{ID: "1", Deadline: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Retry(t.Context(), "job.1")
		if !errors.Is(err, engine.ErrNotEnded) {
			t.Errorf("pending: got %v", err)
		}
		stop := p.run(engine.WorkerOptions{}, job)
		ended(t, p.Engine, "job.1", "failed", 1, 1)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		_, err = p.Retry(t.Context(), "job.1", "succeeded", "cancelled")
		refused(t, err, "cannot redrive while failed")
		info, err := p.Retry(t.Context(), "job.1")
		if err != nil || info.State != "pending" || info.Error != nil || info.Deadline != nil || len(info.Attempts) != 1 {
			t.Errorf("got %+v, %v", info, err)
		}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if out, err := h.Wait(t.Context()); err != nil || out != "done" {
				t.Errorf("got %q, %v", out, err)
			}
		})
		synctest.Wait()
		p.run(engine.WorkerOptions{}, job)
		waiting.Wait()
		ended(t, p.Engine, "job.1", "succeeded", 2, 0)
		_, err = p.Retry(t.Context(), "job.2")
		refused(t, err, "no such job")
		_, err = p.Retry(t.Context(), "job")
		refused(t, err, "job")
	})
}

// Failed jobs are grouped by kind and error, and redriven by what they have in
// common. Others stay as they are.
func TestRedriveMany(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		fails := func(err error) func(context.Context, int) (string, error) {
			return func(_ context.Context, n int) (string, error) {
				if n%2 == 0 {
					return "done", nil
				}
				return "", engine.Fail(err)
			}
		}
		stop := p.run(engine.WorkerOptions{},
			engine.NewJob("a.x", fails(errors.New("disk full"))), engine.NewJob("a.y", fails(errors.New("disk full"))), engine.NewJob("b.x", fails(errors.New("no route"))))
		for _, kind := range []string{"a.x", "a.y", "b.x"} {
			for n := range 10 {
				id := fmt.Sprintf("%s-%d", kind[2:], n)
				h, err := engine.NewJob[int, string](kind, nil).Submit(t.Context(), p.Engine, n, engine.SubmitOptions{ID: id})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Wait(t.Context(), h.ID); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		for want, filter := range map[string]engine.DeadFilter{
			"[b.x no route 5 b.x-9][a.y disk full 5 a.y-9][a.x disk full 5 a.x-9]": {},
			"[a.y disk full 5 a.y-9][a.x disk full 5 a.x-9]":                       {Queue: "a"},
			"[b.x no route 5 b.x-9]":                                               {Kind: "b.x", Code: "fail"},
			"":                                                                     {Code: "panic"},
		} {
			groups, err := p.Dead(t.Context(), filter)
			got := ""
			for _, g := range groups {
				got += fmt.Sprintf("[%s %s %d %s]", g.Kind, g.Error.Message, g.Count, g.ID)
			}
			if err != nil || got != want {
				t.Errorf("%+v: got %s, %v, want %s", filter, got, err, want)
			}
		}
		for _, c := range []struct {
			filter engine.DeadFilter
			want   int
		}{{engine.DeadFilter{Queue: "c"}, 0}, {engine.DeadFilter{Kind: "a.x"}, 5}, {engine.DeadFilter{Queue: "a"}, 5}, {engine.DeadFilter{}, 5}, {engine.DeadFilter{}, 0}} {
			if n, err := p.Redrive(t.Context(), c.filter); err != nil || n != c.want {
				t.Errorf("%+v: got %d, %v, want %d", c.filter, n, err, c.want)
			}
		}
		pending, err := p.List(t.Context(), engine.ListOptions{State: "pending"})
		if err != nil || len(pending) != 15 || items(t, p.nc) != 15 {
			t.Errorf("%d jobs are pending, %v, with %d items, want 15", len(pending), err, items(t, p.nc))
		}
		_, err = p.Redrive(t.Context(), engine.DeadFilter{Queue: "a.b"})
		refused(t, err, "queue")
	})
}

// Nobody hears a redrive of many jobs any more: it ends with the context, and
// says how many it has redriven.
func TestRedriveStops(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		stop := p.run(engine.WorkerOptions{}, engine.NewJob("job", returns(nil, engine.Fail(errors.New("boom")))))
		for _, id := range submit(t, p.Engine, "job", 3) {
			ended(t, p.Engine, id, "failed", 1, 1)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := p.Redrive(ctx, engine.DeadFilter{}); !errors.Is(err, context.Canceled) || n != 0 {
			t.Errorf("got %d, %v", n, err)
		}
	})
}
