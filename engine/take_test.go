package engine_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A worker without a free slot keeps no item from one that has a slot, in the
// queue of the job that it runs and in others.
func TestBusyWorkerTakesNothing(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		l := newLedger()
		long, short := stubborn("job.long", l), greeting()
		a, b := start(t, srv, "a", nil), start(t, srv, "b", nil)
		for _, p := range []*process{a, b} {
			p.run(engine.WorkerOptions{Slots: 1, Queues: []string{"job", "other"}}, long, short)
		}
		submit(t, a.Engine, "job.long", 1)
		time.Sleep(100 * time.Millisecond)
		for i := range 40 {
			queue := []string{"job", "other"}[i/2%2]
			began := time.Now()
			job, err := a.Submit(t.Context(), "greet", []byte(`"Ann"`), engine.SubmitOptions{Queue: queue, ID: strconv.Itoa(i + 2)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			info, err := b.Wait(ctx, job.ID)
			cancel()
			if took := time.Since(began); err != nil || took > time.Second {
				t.Errorf("%s is %s after %v, %v: a worker was idle", job.ID, info.State, took, err)
			}
			time.Sleep(700 * time.Millisecond)
		}
		if n := l.running(); n != 1 {
			t.Errorf("%d long jobs run, want 1", n)
		}
	})
}
