package reconcile_test

import (
	"fmt"
	"runtime"
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

// own reconciles until the benchmark ends. The clock is ahead by the lag of the
// reader, so that no time passes in waiting for it.
func (l *backlog) own(b *testing.B) *reconcile.Reconciler {
	b.Helper()
	held := kv.Open(l.pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	owner := must(kv.Take(b.Context(), held, "owner", "owner", kv.LeaseOptions{TTL: time.Hour, Logger: quiet}))(b)
	b.Cleanup(func() { _ = owner.Release(b.Context()) })
	r := reconcile.New(l.pub, reconcile.Options{
		Namespace: ns, Lease: lease, Owner: owner, Clock: l.Clock, Store: l.Store, Work: l.Work, Timers: l.Timers, Logger: quiet,
	})
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(b.Context()); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(running.Wait)
	return r
}

// BenchmarkTakeover measures how long it takes the owner to look at b.N jobs, and
// the memory that they cost it.
func BenchmarkTakeover(b *testing.B) {
	for _, state := range []machine.State{machine.Pending, machine.Scheduled} {
		b.Run("jobs="+string(state), func(b *testing.B) {
			l := newBacklog(b, state)
			<-time.After(seen) // until the reader may see the last one
			before := heap()
			b.ResetTimer()
			r := l.own(b)
			report := ask(b, l)
			b.StopTimer()
			if report.Looked != b.N || len(report.Healed) > 0 {
				b.Fatalf("report is %+v, want %d jobs", report, b.N)
			}
			b.ReportMetric(float64(heap()-before)/float64(b.N), "heap-B/job")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			runtime.KeepAlive(r)
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
			l.own(b)
			report := ask(b, l)
			b.StopTimer()
			if n := report.Healed[store.LackItem] + report.Healed[store.LackTimer]; n != b.N {
				b.Fatalf("report is %+v, want %d healed", report, b.N)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// ask returns the report about the first look at all jobs.
func ask(b *testing.B, l *backlog) reconcile.Report {
	b.Helper()
	for {
		report, err := reconcile.Ask(b.Context(), l.pub, ns)
		if err == nil {
			return report
		}
	}
}

// heap returns how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
