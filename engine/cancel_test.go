package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A job that has not started ends as cancelled, and never starts; whoever waits
// for it hears of that.
func TestCancel(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		job := napping("job", l)
		h, err := job.Submit(t.Context(), p.Engine, nil, engine.SubmitOptions{ID: "1"})
		if err != nil {
			t.Fatal(err)
		}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			var cancelled *engine.JobError
			_, err := h.Wait(t.Context())
			if !errors.As(err, &cancelled) || cancelled.State != "cancelled" || cancelled.Code != "cancelled" || !errors.Is(err, engine.ErrCancelled) {
				t.Errorf("got %v", err)
			}
		})
		info, err := p.Cancel(t.Context(), "job.1")
		if err != nil || info.State != "cancelled" || info.Finished == nil || len(info.Attempts) != 0 {
			t.Errorf("got %+v, %v", info, err)
		}
		waiting.Wait()
		if again, err := p.Cancel(t.Context(), "job.1"); err != nil || again.Revision != info.Revision {
			t.Errorf("cancelled again: %+v, %v", again, err)
		}
		p.run(engine.WorkerOptions{}, job)
		if h, err := job.Submit(t.Context(), p.Engine, nil, engine.SubmitOptions{ID: "1"}); err != nil || h.Created {
			t.Errorf("submitted again: created %v, %v", h.Created, err)
		}
		time.Sleep(time.Minute)
		if got := l.started("job.1"); len(got) != 0 || items(t, p.nc) != 0 {
			t.Errorf("a cancelled job was started on %v, %d items are left", got, items(t, p.nc))
		}
	})
}

// The context of a job that runs ends, with the cause; a handler that obeys
// cancels its job, and one that does not has won.
func TestCancelRunning(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		job := engine.NewJob("job", func(ctx context.Context, obey int) (string, error) {
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, engine.ErrCancelled) {
				t.Errorf("the context ended by %v", cause)
			}
			if obey == 1 {
				return "", ctx.Err()
			}
			return "done", nil
		})
		p.run(engine.WorkerOptions{}, job)
		for i, want := range []string{"succeeded", "cancelled"} {
			h, err := job.Submit(t.Context(), p.Engine, i)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			info, err := p.Cancel(t.Context(), h.ID)
			if err != nil || info.State != "running" || info.Wait == nil {
				t.Errorf("got %+v, %v", info, err)
			}
			ended(t, p.Engine, h.ID, want, 1, 0)
		}
	})
}

// A job that has ended is not cancelled any more, which is said in one line.
func TestCancelTooLate(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		p.run(engine.WorkerOptions{}, napping("job", l))
		submit(t, p.Engine, "job", 1)
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		_, err := p.Cancel(t.Context(), "job.1")
		refused(t, err, "cannot cancel while succeeded")
		_, err = p.Cancel(t.Context(), "job.2")
		refused(t, err, "no such job")
	})
}

// Of many jobs that are cancelled while a worker takes them, each either started
// or was cancelled before; whoever cancelled it was told which.
func TestCancelRace(t *testing.T) {
	t.Parallel()
	const many = 200
	srv := natstest.Start(t, t.TempDir())
	eng, l := connect(t, srv), newLedger()
	job := engine.NewJob("job", func(ctx context.Context, _ int) (string, error) {
		defer l.enter(ctx)()
		return "", nil
	})
	if _, err := job.SubmitMany(t.Context(), eng, numbered(many)); err != nil {
		t.Fatal(err)
	}
	work(t, connect(t, srv), engine.WorkerOptions{Slots: 2}, job)
	told := map[string]bool{}
	for i := many; i > 0; i-- {
		id := fmt.Sprintf("job.%d", i)
		info, err := eng.Cancel(t.Context(), id)
		told[id] = err == nil && info.State == "cancelled"
	}
	for id, cancelled := range told {
		info, err := eng.Wait(t.Context(), id)
		if err != nil || cancelled && info.State != "cancelled" || (len(l.started(id)) == 0) != cancelled {
			t.Errorf("%s: told cancelled %v, is %s, %v, started on %v", id, cancelled, info.State, err, l.started(id))
		}
	}
}
