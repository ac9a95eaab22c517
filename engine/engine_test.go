package engine_test

import (
	"context"
	"fmt"
	"iter"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// connect opens an engine on a server, with a connection of its own.
func connect(t testing.TB, srv *server.Server, opts ...engine.Options) *engine.Engine {
	t.Helper()
	eng, err := engine.Connect(t.Context(), natstest.Connect(t, srv), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	return eng
}

// work runs a worker until the test ends, or until the function that it
// returns is called.
func work(t testing.TB, eng *engine.Engine, opts engine.WorkerOptions, defs ...engine.Definition) (stop func()) {
	t.Helper()
	worker, err := eng.Worker(opts, defs...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := worker.Run(ctx); err != nil {
			t.Errorf("worker: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func greeting() *engine.Job[string, string] {
	return engine.NewJob("greet", func(_ context.Context, name string) (string, error) {
		return "hello " + name, nil
	})
}

// A job is submitted, runs on a worker, and its result reaches who waits.
func TestJob(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	greet := greeting()
	work(t, connect(t, srv), engine.WorkerOptions{}, greet)

	eng := connect(t, srv)
	job, err := greet.Submit(t.Context(), eng, "Ann", engine.SubmitOptions{ID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if job.ID != "greet.ann" || !job.Created {
		t.Errorf("got %s, created %v, want greet.ann, created", job.ID, job.Created)
	}
	got, err := job.Wait(t.Context())
	if err != nil || got != "hello Ann" {
		t.Errorf("got %q, %v, want hello Ann", got, err)
	}
}

func BenchmarkWorker(b *testing.B) {
	for _, slots := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			srv := natstest.Start(b, b.TempDir())
			done := make(chan struct{}, b.N+1)
			job := engine.NewJob("noop", func(context.Context, int) (int, error) {
				done <- struct{}{}
				return 0, nil
			})
			eng := connect(b, srv)
			jobs := func(n int) iter.Seq[engine.Submission[int]] {
				return func(yield func(engine.Submission[int]) bool) {
					for i := range n {
						if !yield(engine.Submission[int]{Input: i}) {
							return
						}
					}
				}
			}
			if _, err := job.SubmitMany(b.Context(), eng, jobs(b.N)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			work(b, eng, engine.WorkerOptions{Slots: slots}, job)
			for range b.N {
				<-done
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
