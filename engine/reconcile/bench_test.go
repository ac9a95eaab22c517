package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// backlog is a server with b.N jobs that wait, and the process of an owner.
type backlog struct {
	*process
	js jetstream.JetStream
}

func newBacklog(b *testing.B, state machine.State) *backlog {
	b.Helper()
	srv := natstest.StartListening(b, b.TempDir())
	pub := must(publish.New(srv.Connect()))(b)
	b.Cleanup(pub.Close)
	must(streams.Ensure(b.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}))(b)
	l := &backlog{process: newProcess(b, pub), js: must(jetstream.New(pub.Conn()))(b)}
	var all sync.WaitGroup
	now := time.Now()
	for i := range b.N {
		j := machine.Job{ID: fmt.Sprintf("queue.0123456789abcdef-%08d", i), Kind: "queue.kind", State: state, Created: now}
		if state.Delayed() {
			j.Due = machine.Millisecond(now.Add(time.Hour + time.Duration(i)*time.Second/10))
		}
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		all.Add(1)
		l.SubmitAsync(j, func(_ store.Entry, err error) {
			if err != nil {
				b.Error(err)
			}
			all.Done()
		})
	}
	all.Wait()
	return l
}

// own reconciles until everything was looked at once, and returns what was healed.
func (l *backlog) own(b *testing.B) map[store.Lack]int {
	b.Helper()
	held := kv.Open(l.pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	owner := must(kv.Take(b.Context(), held, "owner", "owner", kv.LeaseOptions{TTL: time.Hour, Logger: quiet}))(b)
	b.Cleanup(func() { _ = owner.Release(context.WithoutCancel(b.Context())) }) // the server may be gone
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	r := reconcile.New(l.pub, reconcile.Options{
		Namespace: ns, Lease: lease, Owner: owner, Clock: l.Clock, Store: l.Store, Work: l.Work, Timers: l.Timers,
		Logger: slog.New(&ear{text: "jobs were looked at", heard: cancel}),
	})
	if err := r.Run(ctx); err != nil {
		b.Fatal(err)
	}
	return r.Healed()
}

// ear is a log that calls heard when it hears a text.
type ear struct {
	slog.Handler
	text  string
	heard func()
}

// Enabled implements [slog.Handler].
func (e *ear) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (e *ear) Handle(_ context.Context, r slog.Record) error {
	if r.Message == e.text {
		e.heard()
	}
	return nil
}

// BenchmarkTakeover measures how long it takes the owner to look at b.N jobs, and
// the memory that they cost it.
func BenchmarkTakeover(b *testing.B) {
	for _, state := range []machine.State{machine.Pending, machine.Scheduled} {
		b.Run("jobs="+string(state), func(b *testing.B) {
			l := newBacklog(b, state)
			<-time.After(seen) // until the reader may see the last one
			b.ResetTimer()
			if healed := l.own(b); len(healed) > 0 {
				b.Fatalf("%v were healed", healed)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// BenchmarkHeal measures how long it takes to heal b.N jobs after their items, or
// their timers, were purged.
func BenchmarkHeal(b *testing.B) {
	for _, state := range []machine.State{machine.Pending, machine.Scheduled} {
		b.Run("jobs="+string(state), func(b *testing.B) {
			l := newBacklog(b, state)
			<-time.After(seen)
			for _, stream := range []string{ns.WorkStream(), ns.TimerStream()} {
				s := must(l.js.Stream(b.Context(), stream))(b)
				if err := s.Purge(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			healed := l.own(b)
			b.StopTimer()
			if n := healed[store.LackItem] + healed[store.LackTimer]; n != b.N {
				b.Fatalf("%v were healed, want %d", healed, b.N)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
