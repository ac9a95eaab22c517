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
			"[a.y disk full 5 a.y-9]":                                              {Queue: "a", Kind: "a.y", Text: "full"},
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

// Errors that differ in numbers, names and what they quote are of one sort.
func TestDeadLikeness(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		job := engine.NewJob("job", func(_ context.Context, n int) (any, error) {
			return nil, engine.Fail(fmt.Errorf("order-%d: no row %d in table \"t%d\"", n, n*n, n))
		})
		p.run(engine.WorkerOptions{}, job)
		for n := range 5 {
			h, err := job.Submit(t.Context(), p.Engine, n)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Wait(t.Context(), h.ID); err != nil {
				t.Fatal(err)
			}
		}
		groups, err := p.Dead(t.Context(), engine.DeadFilter{})
		if err != nil || len(groups) != 1 || groups[0].Count != 5 || groups[0].Error.Message != `order-4: no row 16 in table "t4"` {
			t.Errorf("got %+v, %v", groups, err)
		}
	})
}

// 1,000 jobs in all states, of which half run on a node that dies, are cancelled
// at once: those of the dead node within twice the lease, all others within five
// seconds. No handler starts afterwards.
func TestCancelAll(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, a, b := start(t, srv, "p", nil), start(t, srv, "a", nil), start(t, srv, "b", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		a.run(alone(100), endless("run.x"))
		b.run(alone(100), endless("run.x"), engine.NewJob("fail.x", returns(nil, errors.New("boom")), engine.JobOptions{Retry: engine.Retry{Delay: time.Hour}}))
		submit(t, p.Engine, "run.x", 300) // 200 run, 100 are pending
		submit(t, p.Engine, "fail.x", 200)
		submit(t, p.Engine, "none.x", 200)
		for n := range 300 {
			if _, err := p.Submit(t.Context(), "later.x", nil, engine.SubmitOptions{ID: fmt.Sprint(n), Delay: time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		a.link.Down()
		time.Sleep(time.Second)
		begun := time.Now()
		got, err := p.CancelAll(t.Context(), engine.CancelFilter{})
		if err != nil || got.Cancelled+got.Ending != 1000 || got.Ending < 200 { // more, if b starts some meanwhile
			t.Errorf("got %+v, %v", got, err)
		}
		open := func() map[string]int {
			n := map[string]int{}
			all, err := p.List(t.Context(), engine.ListOptions{Limit: 2000})
			if err != nil || len(all) != 1000 {
				t.Fatalf("%d jobs are listed, %v", len(all), err)
			}
			for _, j := range all {
				if j.State != "cancelled" {
					n[fmt.Sprint(j.Node != nil && *j.Node == "a", " ", j.State)]++ // on the dead node?
				}
			}
			return n
		}
		time.Sleep(time.Until(begun.Add(5 * time.Second)))
		if left := open(); len(left) > 0 && left["true running"] == 0 || len(left) > 1 {
			t.Errorf("after 5s there are left %v", left)
		}
		time.Sleep(time.Until(begun.Add(12 * time.Second)))
		if left := open(); len(left) != 0 {
			t.Errorf("after twice the lease there are left %v", left)
		}
		if got, err := p.CancelAll(t.Context(), engine.CancelFilter{}); err != nil || got != (engine.Cancellation{}) {
			t.Errorf("again: got %+v, %v", got, err)
		}
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// What does not match stays.
func TestCancelSome(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		p.run(engine.WorkerOptions{Slots: 3}, endless("a.x"))
		submit(t, p.Engine, "a.x", 5)
		for _, kind := range []string{"b.x", "b.y"} {
			for n := range 2 {
				if _, err := p.Submit(t.Context(), kind, nil, engine.SubmitOptions{ID: kind[2:] + fmt.Sprint(n)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Second)
		for _, c := range []struct {
			filter engine.CancelFilter
			want   engine.Cancellation
		}{
			{engine.CancelFilter{Queue: "c"}, engine.Cancellation{}},
			{engine.CancelFilter{Queue: "a", States: []string{"pending", "scheduled", "retrying"}}, engine.Cancellation{Cancelled: 2}},
			{engine.CancelFilter{Kind: "b.x"}, engine.Cancellation{Cancelled: 2}},
			{engine.CancelFilter{States: []string{"running"}}, engine.Cancellation{Ending: 3}},
			{engine.CancelFilter{}, engine.Cancellation{Cancelled: 2}},
		} {
			if got, err := p.CancelAll(t.Context(), c.filter); err != nil || got != c.want {
				t.Errorf("%+v: got %+v, %v, want %+v", c.filter, got, err, c.want)
			}
			time.Sleep(time.Second)
		}
		_, err := p.CancelAll(t.Context(), engine.CancelFilter{States: []string{"failed"}})
		refused(t, err, "nothing to cancel in state")
		_, err = p.CancelAll(t.Context(), engine.CancelFilter{Queue: "a.b"})
		refused(t, err, "queue")
	})
}
