package scheduler_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/timers/scheduler"
)

var (
	many  = flag.Int("scheduler.many", 1000, "how many schedules BenchmarkIdle keeps")
	idle  = flag.Duration("scheduler.idle", time.Second, "for how long BenchmarkIdle does; a minute for numbers that mean something")
	ticks = flag.Int("scheduler.ticks", 500, "how many schedules BenchmarkTicks lets tick; 10000 take 60 s")
)

// BenchmarkIdle keeps schedules of which none is due soon, except for one that is
// overdue when a new owner takes over. It tells
//
//	made/s       how many are begun a second, when all are new
//	first-ms     when the overdue one has its job, after the takeover
//	takeover-ms  when the new owner knows all of them
//	B/schedule   what it keeps in memory of each
//	owner-cpu%   what it takes of one core, and the server for its sake
//	server-cpu%  what the server takes without it
//
// The whole: -scheduler.many=100000 -scheduler.idle=1m -benchtime=1x.
func BenchmarkIdle(b *testing.B) {
	w := newWorld(b, natstest.Start(b, b.TempDir()))
	day := time.Now().Add(24 * time.Hour)
	w.applyMany(b, *many, func(s *spec.Schedule) { s.Every, s.Start = spec.Duration(24*time.Hour), day.Add(rand.N(24*time.Hour)) })
	began := time.Now()
	o := w.own("first", nil)
	o.untilResting(b, *many)
	made := time.Since(began)
	o.leave()

	var first, takeover time.Duration
	var memory, alone, owned float64
	for b.Loop() {
		name := fmt.Sprint("overdue", b.N)
		w.apply(spec.Schedule{Name: name, At: []time.Time{time.Now().Add(time.Second)}})
		alone += w.load()
		before := heapInUse()
		began := time.Now()
		o := w.own("second", nil)
		first += o.untilTick(b, name).Sub(began)
		o.untilResting(b, *many+1)
		takeover += time.Since(began)
		memory = heapInUse() - before
		owned += w.load()
		if !o.lease.Valid() {
			b.Error("the owner lost its lease")
		}
		o.leave()
		w.drop(name)
	}
	each := func(total float64, unit string) { b.ReportMetric(total/float64(b.N), unit) }
	b.ReportMetric(float64(*many)/made.Seconds(), "made/s")
	each(float64(first.Milliseconds()), "first-ms")
	each(float64(takeover.Milliseconds()), "takeover-ms")
	b.ReportMetric(memory/float64(*many), "B/schedule")
	each((owned-alone)*100, "owner-cpu%")
	each(alone*100, "server-cpu%")
}

// BenchmarkTicks lets schedules tick at random milliseconds, 10,000 a minute, and
// tells how late the items of their jobs were stored. The whole:
// -scheduler.ticks=10000 -benchtime=1x.
func BenchmarkTicks(b *testing.B) {
	var late []time.Duration
	for b.Loop() {
		w := newWorld(b, natstest.Start(b, b.TempDir()))
		o := w.own("a", nil)
		within := time.Duration(*ticks) * 6 * time.Millisecond
		from := time.Now().Add(2*time.Second + time.Duration(*ticks)*time.Millisecond).Truncate(time.Millisecond)
		w.applyMany(b, *ticks, func(s *spec.Schedule) {
			s.At = []time.Time{from.Add(rand.N(within).Truncate(time.Millisecond))}
		})
		if time.Now().After(from) {
			b.Fatal("the schedules were not stored in time")
		}
		late = append(late, w.offered(b, *ticks)...)
		o.leave()
	}
	slices.Sort(late)
	if late[0] < 0 {
		b.Errorf("one was %v early", -late[0])
	}
	report := func(d time.Duration, unit string) { b.ReportMetric(float64(d)/float64(time.Millisecond), unit) }
	report(late[len(late)/2], "p50-ms")
	report(late[len(late)*99/100], "p99-ms")
	report(late[len(late)-1], "max-ms")
}

// applyMany stores schedules without waiting for each.
func (w *world) applyMany(b *testing.B, n int, set func(*spec.Schedule)) {
	b.Helper()
	var failed atomic.Pointer[error]
	stored := make(chan struct{}, n)
	for i := range n {
		s := spec.Schedule{Name: fmt.Sprint("s", i), Job: "q.k"}
		set(&s)
		must(0, w.pub.Room(b.Context()))(b)
		w.definitions.CreateAsync(scheduler.Key(s.Name), scheduler.Stored{Schedule: s}, func(_ uint64, err error) {
			if err != nil {
				failed.Store(&err)
			}
			stored <- struct{}{}
		})
	}
	for range n {
		<-stored
	}
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}

// leave ends an owner, and what it holds.
func (o *owner) leave() {
	_ = o.lease.Release(context.Background())
	o.stop()
}

// untilResting waits until an owner knows so many schedules, and all of them rest.
func (o *owner) untilResting(b *testing.B, n int) {
	b.Helper()
	patient(b, "all schedules rest", func() bool {
		all, awake := o.Known()
		return all == n && awake == 0
	})
}

// untilTick waits until a schedule has a job, and returns when it was made.
func (o *owner) untilTick(b *testing.B, name string) (made time.Time) {
	b.Helper()
	patient(b, name+" ticks", func() bool {
		c, err := scheduler.Cursors(o.pub, ns).Get(b.Context(), scheduler.Key(name))
		made = c.Stored
		return err == nil && c.Value.LastID != ""
	})
	return made
}

// offered waits until so many items are offered, and returns how late each was, by
// the tick in its name.
func (w *world) offered(b *testing.B, n int) (late []time.Duration) {
	b.Helper()
	js := must(jetstream.New(w.pub.Conn()))(b)
	stream := must(js.Stream(b.Context(), ns.WorkStream()))(b)
	var state jetstream.StreamState
	patient(b, "all jobs are offered", func() bool {
		state = must(stream.Info(b.Context()))(b).State
		return state.Msgs >= uint64(n)
	})
	if state.Msgs != uint64(n) {
		b.Fatalf("%d jobs are offered, want %d", state.Msgs, n)
	}
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		msg := must(stream.GetMsg(b.Context(), seq))(b)
		var ms int64
		_, after, _ := strings.Cut(msg.Subject, "=")
		must(fmt.Sscan(after, &ms))(b)
		late = append(late, msg.Time.Sub(time.UnixMilli(ms)))
	}
	return late
}

// load returns how much of one core this process takes.
func (w *world) load() float64 {
	runtime.GC()
	used := func() time.Duration {
		var u syscall.Rusage
		must(0, syscall.Getrusage(syscall.RUSAGE_SELF, &u))(w)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	<-time.After(*idle)
	return (used() - before).Seconds() / idle.Seconds()
}

// heapInUse returns the bytes that are reachable.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// patient waits until ok, asking again and again.
func patient(b *testing.B, what string, ok func() bool) {
	b.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.Fatalf("not within 5 minutes: %s", what)
		}
	}
}
