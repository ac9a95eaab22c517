package timers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers"
)

// firedTimer is a timer that fired, and how late that was.
type firedTimer struct {
	local string
	late  time.Duration
}

// firer is a process that fires timers while it is the owner.
type firer struct {
	testing.TB
	stop   func()
	fire   func(context.Context, streams.Timer) error // nil: nothing more
	mu     sync.Mutex
	fired  []firedTimer
	logged strings.Builder
}

// Fire notes a timer, and does what the test wants.
func (f *firer) Fire(ctx context.Context, timer streams.Timer) error {
	f.mu.Lock()
	f.fired = append(f.fired, firedTimer{timer.Local, time.Since(timer.At)})
	f.mu.Unlock()
	if f.fire != nil {
		return f.fire(ctx, timer)
	}
	return nil
}

// Write takes the log.
func (f *firer) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logged.Write(line)
}

// log returns the lines that were logged, without their times.
func (f *firer) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logged.String()
}

// names returns which timers fired, in alphabetical order.
func (f *firer) names() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, timer := range f.fired {
		names = append(names, timer.local)
	}
	slices.Sort(names)
	return names
}

// expect fails the test unless just these timers fired, each once, and on time.
func (f *firer) expect(want ...string) {
	f.Helper()
	slices.Sort(want)
	if d := cmp.Diff(want, f.names()); d != "" {
		f.Errorf("fired (-want +got):\n%s", d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, timer := range f.fired {
		if timer.late < 0 || timer.late > 10*time.Millisecond {
			f.Errorf("%s fired %v late", timer.local, timer.late)
		}
	}
}

// reign makes a process the owner, which fires timers, until the test ends. It
// returns when it is.
func reign(t testing.TB, link *natstest.Link, node string, fire func(context.Context, streams.Timer) error) *firer {
	t.Helper()
	f := &firer{TB: t, fire: fire}
	logger := slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	pub, owner := open(t, link.Connect(t)), make(chan struct{}, 1000)
	f.stop = loop(t, func(ctx context.Context) error {
		opts := timers.StandOptions{Node: node, Lease: lease, Logger: quiet}
		return timers.Stand(ctx, pub, opts, func(ctx context.Context, l *kv.Lease) error {
			owner <- struct{}{}
			return timers.Run(ctx, pub, timers.Options{
				Owner: l, Clock: streams.NewClock(ns, pub), Fire: f.Fire, Logger: logger,
			})
		})
	})
	<-owner
	return f
}

// book is the stream of timers, as whoever sets them sees it.
type book struct {
	testing.TB
	*streams.Timers
	pub *publish.Publisher
}

func newBook(t testing.TB, pub *publish.Publisher) book {
	t.Helper()
	stored, err := streams.NewTimers(ns, pub)
	if err != nil {
		t.Fatal(err)
	}
	return book{t, stored, pub}
}

// timer returns a timer that offers an item of queue q.
func timer(local string, at time.Time) streams.Timer {
	item := streams.Item{Queue: "q", Local: local, Record: []byte("record"), Revision: 1, Due: at}
	return streams.Timer{Purpose: streams.PurposeDue, At: at, Queue: "q", Local: local, Item: item}
}

// set sets a timer.
func (b book) set(local string, at time.Time) {
	b.Helper()
	if err := b.Set(b.Context(), timer(local, at)); err != nil {
		b.Fatal(err)
	}
}

// holds fails the test unless the stream holds so many timers.
func (b book) holds(want uint64) {
	b.Helper()
	if got, _, err := b.Count(b.Context()); err != nil || got != want {
		b.Errorf("there are %d timers left, %v; want %d", got, err, want)
	}
}

// timerStream returns the stream of timers itself.
func timerStream(t testing.TB, pub *publish.Publisher) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(pub.Conn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), ns.TimerStream())
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// Timers fire at their millisecond, in minutes or in weeks, whenever they were
// set.
func TestOnTime(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		b := newBook(t, setup(t, srv))
		f := reign(t, network(t, srv, nil), "a", nil)
		dice := rand.New(rand.NewPCG(1, 2))
		var want []string
		for i := range 300 {
			within := []time.Duration{time.Second, time.Minute, 10 * time.Minute, 2 * time.Hour}[i%4]
			local := fmt.Sprint("t", i)
			b.set(local, time.Now().Add(time.Duration(dice.Int64N(int64(within)))))
			want = append(want, local)
			time.Sleep(time.Duration(dice.Int64N(int64(100 * time.Millisecond))))
		}
		time.Sleep(3 * time.Hour)
		f.expect(want...)
		b.holds(0)
		if log := f.log(); strings.Contains(log, "WARN") {
			t.Errorf("logged %s", log)
		}
	})
}

// What is replaced or cancelled does not fire, whether it was set before the
// takeover or after it.
func TestReplacedAndCancelled(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		b := newBook(t, setup(t, srv))
		minute := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
		change := func(prefix string, add time.Duration) {
			t.Helper()
			b.set(prefix+"-later", minute.Add(5*time.Second))
			b.set(prefix+"-sooner", minute.Add(50*time.Second))
			b.set(prefix+"-never", minute.Add(10*time.Second))
			time.Sleep(add)
			b.set(prefix+"-later", minute.Add(40*time.Second))
			b.set(prefix+"-sooner", minute.Add(10*time.Second))
			if err := b.Cancel(t.Context(), timer(prefix+"-never", minute.Add(10*time.Second))); err != nil {
				t.Error(err)
			}
		}
		change("before", 0)
		f := reign(t, network(t, srv, nil), "a", nil)
		change("after", 0)
		change("slowly", time.Minute)
		time.Sleep(time.Hour)
		f.expect("before-later", "before-sooner", "after-later", "after-sooner", "slowly-later", "slowly-sooner")
		b.holds(0)
	})
}

// A new owner finds every timer that is stored, wherever it is filed, fires at
// once what is overdue, and leaves alone what it cannot read.
func TestTakeover(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		b, start := newBook(t, pub), time.Now()
		var want []string
		for _, after := range []time.Duration{10 * time.Millisecond, time.Second, 90 * time.Second, 5 * time.Minute, time.Hour, 2 * time.Hour} {
			local := strings.ReplaceAll(after.String(), ".", "_")
			b.set(local, start.Add(after))
			want = append(want, local)
		}
		raw := func(minute int64, local string, header nats.Header) {
			t.Helper()
			subject := strings.TrimSuffix(ns.TimerMinute(minute), ">") + local
			if _, err := pub.Publish(t.Context(), &nats.Msg{Subject: subject, Header: header}); err != nil {
				t.Fatal(err)
			}
		}
		due := fmt.Sprint(start.Add(2 * time.Minute).UnixMilli())
		raw(17, "deadline.q.old-minute", nats.Header{"Mr-Type": {"timer/1"}, "Mr-Due": {due}})
		raw(1<<40, "deadline.q.far-minute", nats.Header{"Mr-Type": {"timer/1"}, "Mr-Due": {due}})
		want = append(want, "old-minute", "far-minute")
		raw(18, "deadline.q.no-due-1", nats.Header{"Mr-Type": {"timer/1"}})
		raw(18, "deadline.q.no-due-2", nats.Header{"Mr-Type": {"timer/1"}})
		raw(18, "deadline.q.newer", nats.Header{"Mr-Type": {"timer/2"}, "Mr-Due": {due}})
		raw(18, "sunrise.q.unknown", nats.Header{"Mr-Type": {"timer/1"}, "Mr-Due": {due}})

		f := reign(t, network(t, srv, nil), "a", nil)
		time.Sleep(3 * time.Hour)
		f.expect(want...)
		b.holds(4)
		for _, line := range []string{"without a due time", "version 2", `no purpose \"sunrise\"`} {
			if n := strings.Count(f.log(), line); n != 1 {
				t.Errorf("%q is in the log %d times:\n%s", line, n, f.log())
			}
		}

		f.stop()
		b.set("overdue-1", time.Now().Add(-time.Hour))
		b.set("overdue-2", time.Now())
		f = reign(t, network(t, srv, nil), "b", nil)
		time.Sleep(time.Second)
		if d := cmp.Diff([]string{"overdue-1", "overdue-2"}, f.names()); d != "" {
			t.Errorf("fired at once (-want +got):\n%s", d)
		}
	})
}

// A timer that fails fires again, later and later, and is in the log once.
func TestFireFails(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		b, start := newBook(t, setup(t, srv)), time.Now()
		var tries []time.Duration
		f := reign(t, network(t, srv, nil), "a", func(_ context.Context, timer streams.Timer) error {
			if timer.Local != "bad" {
				return nil
			}
			if tries = append(tries, time.Since(start).Round(time.Second)); len(tries) < 9 {
				return errors.New("no luck")
			}
			return nil
		})
		b.set("bad", start)
		b.set("good", start.Add(3*time.Second))
		time.Sleep(time.Hour)
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91, 121}
		for i := range want {
			want[i] *= time.Second
		}
		if d := cmp.Diff(want, tries); d != "" {
			t.Errorf("fired at (-want +got):\n%s", d)
		}
		b.holds(0)
		if n := strings.Count(f.log(), "no luck"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, f.log())
		}
	})
}

// An owner whose timers are cancelled all the time does not keep them in memory
// until they would be due.
func TestBloat(t *testing.T) {
	defer timers.SetSlack(100)()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		b := newBook(t, pub)
		f := reign(t, network(t, srv, nil), "a", nil)
		later := time.Now().Add(2 * time.Hour)
		for i := range 300 {
			b.set(fmt.Sprint("cancelled", i), later)
		}
		time.Sleep(time.Second)
		if err := timerStream(t, pub).Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.set("soon", time.Now().Add(3*time.Minute))
		b.set("much-later", later)
		time.Sleep(2 * time.Minute)
		if want := "waiting=2"; !strings.Contains(f.log(), want) {
			t.Errorf("the log has no %s:\n%s", want, f.log())
		}
		b.set("later", time.Now().Add(5*time.Minute))
		time.Sleep(3 * time.Hour)
		f.expect("soon", "later", "much-later")
		b.holds(0)
	})
}

// What Run needs is refused in one go if it is missing.
func TestRunOptions(t *testing.T) {
	t.Parallel()
	pub := open(t, natstest.Connect(t, natstest.Start(t, t.TempDir())))
	err := timers.Run(t.Context(), pub, timers.Options{})
	for _, want := range []string{"owner", "clock", "fire"} {
		if err == nil || !strings.Contains(err.Error(), want+" is required") {
			t.Errorf("got %v, want a complaint about the %s", err, want)
		}
	}
}
