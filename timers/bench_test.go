package timers_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers"
)

var (
	many    = flag.Int("timers.many", 500, "how many timers BenchmarkLateness fires; 10000 take 60 s")
	burst   = flag.Int("timers.burst", 2000, "how many timers BenchmarkDrain fires, due within one second")
	pending = flag.Int("timers.pending", 20_000, "how many timers BenchmarkTakeover finds")
)

// contenders fire timers, and tell how late each was. The server's own message
// schedules are the yardstick: in the same run, with the same storage.
var contenders = []struct {
	name string
	fire func(*testing.B, *natstest.Listening, []time.Time) []time.Duration
}{{"millrace", fireMany}, {"server", fireByServer}}

// BenchmarkLateness fires timers that are due at random milliseconds, 10,000 a
// minute, and tells how late they were. Each offers its item. The whole:
// -timers.many=10000 -benchtime=1x.
func BenchmarkLateness(b *testing.B) {
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			srv := natstest.StartListening(b, b.TempDir())
			within := time.Duration(*many) * 6 * time.Millisecond
			var late []time.Duration
			for b.Loop() {
				late = append(late, c.fire(b, srv, times(*many, within))...)
			}
			slices.Sort(late)
			report := func(d time.Duration, unit string) { b.ReportMetric(float64(d)/float64(time.Millisecond), unit) }
			report(late[len(late)/2], "p50-ms")
			report(late[len(late)*99/100], "p99-ms")
			report(late[len(late)-1], "max-ms")
		})
	}
}

// BenchmarkDrain fires timers that are due within one second, and tells how many
// are fired a second until the last one is. The whole: -timers.burst=100000
// -benchtime=1x.
func BenchmarkDrain(b *testing.B) {
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			srv := natstest.StartListening(b, b.TempDir())
			var took time.Duration
			for b.Loop() {
				all := times(*burst, time.Second)
				first, last := slices.MinFunc(all, time.Time.Compare), time.Time{}
				for i, late := range c.fire(b, srv, all) {
					if fired := all[i].Add(late); fired.After(last) {
						last = fired
					}
				}
				took += last.Sub(first)
			}
			b.ReportMetric(float64(*burst*b.N)/took.Seconds(), "timers/s")
		})
	}
}

// times returns random milliseconds. The first is not before all are set.
func times(n int, within time.Duration) []time.Time {
	from := time.Now().Add(time.Second + time.Duration(n)*100*time.Microsecond).Truncate(time.Millisecond)
	all := make([]time.Time, n)
	for i := range all {
		all[i] = from.Add(rand.N(within).Truncate(time.Millisecond))
	}
	return all
}

// lateness is how late timers fired, which have numbers. Each has to, and none too
// early.
type lateness struct {
	b    *testing.B
	mu   sync.Mutex
	at   []time.Time
	late []time.Duration
	left int
	all  chan struct{}
}

func newLateness(b *testing.B, at []time.Time) *lateness {
	l := &lateness{b: b, at: at, late: make([]time.Duration, len(at)), left: len(at), all: make(chan struct{})}
	for i := range l.late {
		l.late[i] = -1
	}
	return l
}

// fired notes that the timer of a name such as t12 has.
func (l *lateness) fired(name string, now time.Time) {
	i, err := strconv.Atoi(name[1:])
	if err != nil {
		l.b.Error(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late[i] >= 0 {
		return
	}
	if l.late[i] = now.Sub(l.at[i]); l.late[i] < 0 {
		l.b.Errorf("%s was %v early", name, -l.late[i])
		l.late[i] = 0
	}
	if l.left--; l.left == 0 {
		close(l.all)
	}
}

// wait waits until all have fired, and returns how late.
func (l *lateness) wait() []time.Duration {
	l.b.Helper()
	last := slices.MaxFunc(l.at, time.Time.Compare)
	select {
	case <-l.all:
	case <-time.After(time.Until(last) + time.Minute):
		l.mu.Lock()
		defer l.mu.Unlock()
		l.b.Fatalf("%d of %d timers are lost", l.left, len(l.at))
	}
	return l.late
}

// fireMany sets timers and lets an owner fire them.
func fireMany(b *testing.B, srv *natstest.Listening, at []time.Time) []time.Duration {
	b.Helper()
	setter, owner := open(b, srv.Connect()), open(b, srv.Connect())
	ensure(b, setter)
	work, err := streams.NewWork(ns, owner)
	if err != nil {
		b.Fatal(err)
	}
	l := newLateness(b, at)
	stop := own(b, owner, slog.New(slog.DiscardHandler), func(ctx context.Context, timer streams.Timer) error {
		err := work.Offer(ctx, timer.Item)
		if err == nil {
			l.fired(timer.Local, time.Now())
		}
		return err
	})
	defer stop()
	setMany(b, setter, at)
	return l.wait()
}

// fireByServer stores message schedules and waits for the messages that the server
// makes of them, each when it was stored.
func fireByServer(b *testing.B, srv *natstest.Listening, at []time.Time) []time.Duration {
	b.Helper()
	js, err := jetstream.New(srv.Connect())
	if err != nil {
		b.Fatal(err)
	}
	stream, err := js.CreateOrUpdateStream(b.Context(), jetstream.StreamConfig{
		Name: "S", Subjects: []string{"schedule.*", "fired.*"}, AllowMsgSchedules: true, MaxConsumers: 10,
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := stream.Purge(b.Context()); err != nil {
		b.Fatal(err)
	}
	l := newLateness(b, at)
	messages, err := stream.OrderedConsumer(b.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{"fired.*"}})
	if err != nil {
		b.Fatal(err)
	}
	stop, err := messages.Consume(func(msg jetstream.Msg) {
		stored, err := msg.Metadata()
		if err != nil {
			b.Error(err)
			return
		}
		l.fired(strings.TrimPrefix(msg.Subject(), "fired."), stored.Timestamp)
	})
	if err != nil {
		b.Fatal(err)
	}
	defer stop.Stop()
	for i, at := range at {
		msg := nats.NewMsg(fmt.Sprint("schedule.t", i))
		msg.Header.Set("Nats-Schedule", "@at "+at.UTC().Format(time.RFC3339Nano))
		msg.Header.Set("Nats-Schedule-Target", fmt.Sprint("fired.t", i))
		if _, err := js.PublishMsgAsync(msg); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	return l.wait()
}

// BenchmarkTakeover reads the timers of a predecessor, due in a day, until the
// last of them waits. One more is due just now; first-ms is when that fires. The
// whole: -timers.pending=1000000 -benchtime=1x.
func BenchmarkTakeover(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	setter := open(b, srv.Connect())
	ensure(b, setter)
	day := time.Now().Add(24 * time.Hour)
	all := make([]time.Time, *pending)
	for i := range all {
		all[i] = day.Add(rand.N(24 * time.Hour))
	}
	setMany(b, setter, all)
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
func setMany(b *testing.B, pub *publish.Publisher, all []time.Time) {
	b.Helper()
	book := newBook(b, pub)
	var failed atomic.Pointer[error]
	var set sync.WaitGroup
	for i, at := range all {
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		set.Add(1)
		book.SetAsync(timer(fmt.Sprint("t", i), at), func(err error) {
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
