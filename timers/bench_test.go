package timers_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers"
)

var (
	many    = flag.Int("timers.many", 500, "how many timers BenchmarkLateness fires; 10000 take 60 s")
	pending = flag.Int("timers.pending", 20_000, "how many timers BenchmarkTakeover finds")
)

// BenchmarkLateness fires timers that are due at random milliseconds, 10,000 a
// minute, and tells how late they were. Each offers its item. The whole:
// -timers.many=10000 -benchtime=1x.
func BenchmarkLateness(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	setter := open(b, srv.Connect())
	ensure(b, setter)
	owner := open(b, srv.Connect())
	work, err := streams.NewWork(ns, owner)
	if err != nil {
		b.Fatal(err)
	}
	var late []time.Duration
	for b.Loop() {
		late = append(late, fireMany(b, setter, owner, work)...)
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

// fireMany sets timers and returns how late each of them fired.
func fireMany(b *testing.B, setter, owner *publish.Publisher, work *streams.Work) (late []time.Duration) {
	b.Helper()
	var mu sync.Mutex
	all := make(chan struct{})
	stop := own(b, owner, slog.New(slog.DiscardHandler), func(ctx context.Context, timer streams.Timer) error {
		err := work.Offer(ctx, timer.Item)
		mu.Lock()
		defer mu.Unlock()
		if late = append(late, time.Since(timer.At)); len(late) == *many {
			close(all)
		}
		return err
	})
	defer stop()
	within, from := time.Duration(*many)*6*time.Millisecond, time.Now().Add(time.Second)
	setMany(b, setter, *many, func() time.Time { return from.Add(rand.N(within)) })
	<-all
	return late
}

// BenchmarkTakeover reads the timers of a predecessor, due in a day, until the
// last of them waits. One more is due just now; first-ms is when that fires. The
// whole: -timers.pending=1000000 -benchtime=1x.
func BenchmarkTakeover(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	setter := open(b, srv.Connect())
	ensure(b, setter)
	day := time.Now().Add(24 * time.Hour)
	setMany(b, setter, *pending, func() time.Time { return day.Add(rand.N(24 * time.Hour)) })
	owner := open(b, srv.Connect())
	var memory float64
	var first time.Duration
	for b.Loop() {
		newBook(b, setter).set("now", time.Now())
		before, start := heapInUse(), time.Now()
		read, fired := make(signal), make(chan struct{})
		stop := own(b, owner, slog.New(read), func(context.Context, streams.Timer) error {
			first += time.Since(start)
			close(fired)
			return nil
		})
		<-fired
		<-read
		b.StopTimer()
		memory = heapInUse() - before
		stop()
		b.StartTimer()
	}
	b.ReportMetric(memory/float64(*pending), "B/timer")
	b.ReportMetric(float64(first.Milliseconds())/float64(b.N), "first-ms")
	b.ReportMetric(float64(*pending)*float64(b.N)/b.Elapsed().Seconds(), "timers/s")
}

// heapInUse returns the bytes that are reachable.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// signal is closed by the first record that is logged to it.
type signal chan struct{}

func (s signal) Enabled(_ context.Context, level slog.Level) bool { return level == slog.LevelDebug }
func (s signal) Handle(context.Context, slog.Record) error        { close(s); return nil }
func (s signal) WithAttrs([]slog.Attr) slog.Handler               { return s }
func (s signal) WithGroup(string) slog.Handler                    { return s }

// ensure makes the assets.
func ensure(b *testing.B, pub *publish.Publisher) {
	b.Helper()
	if _, err := streams.Ensure(b.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}); err != nil {
		b.Fatal(err)
	}
}

// own fires timers under the owner's lease until stop is called.
func own(b *testing.B, pub *publish.Publisher, logger *slog.Logger, fire func(context.Context, streams.Timer) error) (stop func()) {
	b.Helper()
	l, err := kv.Take(b.Context(), leases(pub), "owner", "bench", kv.LeaseOptions{TTL: lease, Mine: true, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	endKeep := loop(b, l.Keep)
	endRun := loop(b, func(ctx context.Context) error {
		return timers.Run(ctx, pub, timers.Options{Owner: l, Clock: streams.NewClock(ns, pub), Fire: fire, Logger: logger})
	})
	return func() { endRun(); endKeep() }
}

// setMany sets timers without waiting for each.
func setMany(b *testing.B, pub *publish.Publisher, n int, at func() time.Time) {
	b.Helper()
	book := newBook(b, pub)
	var failed atomic.Pointer[error]
	var set sync.WaitGroup
	for i := range n {
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		set.Add(1)
		book.SetAsync(timer(fmt.Sprint("t", i), at()), func(err error) {
			if err != nil {
				failed.Store(&err)
			}
			set.Done()
		})
	}
	set.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}
