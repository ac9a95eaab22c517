package engine_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// Whoever waits hears of an end at once, whenever the wait began, and however
// the job ended.
func TestWait(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		job := engine.NewJob("job", func(_ context.Context, ok bool) (int, error) {
			time.Sleep(10 * time.Second)
			if !ok {
				return 0, engine.Fail(errors.New("boom"))
			}
			return 7, nil
		})
		p.run(engine.WorkerOptions{}, job)
		good, err := job.Submit(t.Context(), p.Engine, true)
		if err != nil {
			t.Fatal(err)
		}
		bad, err := job.Submit(t.Context(), p.Engine, false)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 2 { // before the end, and after it
			if out, err := good.Wait(t.Context()); out != 7 || err != nil {
				t.Errorf("got %d, %v, want 7", out, err)
			}
			out, err := bad.Wait(t.Context())
			var failed *engine.JobError
			if !errors.As(err, &failed) || failed.State != "failed" || failed.Message != "boom" || failed.Code != "fail" || failed.ID != bad.ID || out != 0 {
				t.Errorf("got %d, %v", out, err)
			}
			if took := time.Since(began).Round(time.Second); took != 10*time.Second {
				t.Errorf("it took %v, want 10s", took)
			}
		}
	})
}

// An announcement that is lost, because the waiter was cut off or nobody made
// it, costs a waiter half a minute at most.
func TestWaitHearsNothing(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a := start(t, srv, "a", nil)
		b := start(t, srv, "b", func(natstest.Write) natstest.Fault { return natstest.Hold }, "mr.default.ended.>")
		c := start(t, srv, "c", nil)
		b.run(engine.WorkerOptions{}, engine.NewJob("job", sleeps))
		submit(t, a.Engine, "job", 1)
		var waiters sync.WaitGroup
		began := time.Now()
		waiters.Go(func() {
			if info := ended(t, a.Engine, "job.1", "succeeded", 1, 0); time.Since(*info.Finished) > 31*time.Second {
				t.Errorf("nobody announced the end, and a waiter knew after %v", time.Since(*info.Finished))
			}
		})
		waiters.Go(func() {
			ended(t, c.Engine, "job.1", "succeeded", 1, 0)
			if took := time.Since(began); took < 100*time.Second || took > 102*time.Second {
				t.Errorf("a waiter that was cut off knew after %v, want when it was back, after 100s", took)
			}
		})
		time.Sleep(50 * time.Second)
		c.link.Down()
		time.Sleep(50 * time.Second)
		c.link.Up()
		waiters.Wait()
	})
}

// A wait ends with its context, and at once for what is not there.
func TestWaitRefused(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		submit(t, p.Engine, "job", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Wait(ctx, "job.1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_, err := p.Wait(t.Context(), "job.2")
		refused(t, err, "no such job: job.2")
		if !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		for id, want := range map[string]string{"job": "has 0 dots", "a.b.c": "has 2 dots", "a.b c": "contains ' '"} {
			_, err := p.Wait(t.Context(), id)
			refused(t, err, want)
			_, err = p.Get(t.Context(), id)
			refused(t, err, want)
			_, err = p.Cancel(t.Context(), id)
			refused(t, err, want)
		}
		_, err = p.Get(t.Context(), "job.2")
		refused(t, err, "no such job")
	})
}

// What lies there and is no job, or that of a newer build, cannot be waited for.
func TestWaitUnreadable(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		if _, err := p.nc.Request("$KV.mr_default_jobs.job.1", []byte("hello"), time.Minute); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := p.Wait(ctx, "job.1")
		refused(t, err, "the record cannot be read")
		_, err = p.Get(ctx, "job.1")
		refused(t, err, "the record cannot be read")
		if list, err := p.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("got %v, %v", list, err)
		}
	})
}

// A result that does not fit who waits is an error, and stays what it is.
func TestWaitResultDoesNotFit(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", returns("hello", nil)))
		other := engine.NewJob[any, int]("job", nil)
		h, err := other.Submit(t.Context(), p.Engine, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Wait(t.Context())
		refused(t, err, "its result does not fit int")
		if info, err := h.Get(t.Context()); err != nil || info.State != "succeeded" || string(info.Result) != `"hello"` {
			t.Errorf("got %+v, %v", info, err)
		}
	})
}

// A connection that its owner closed ends a wait.
func TestWaitClosed(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		submit(t, p.Engine, "job", 1)
		time.AfterFunc(time.Second, p.nc.Close)
		began := time.Now()
		_, err := p.Wait(t.Context(), "job.1")
		refused(t, err, "closed")
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
