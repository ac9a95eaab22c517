package timers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers"
)

// An owner that is cut off, or frozen, fires nothing once its lease is over, also
// when it comes back, and the next owner fires what was due.
func TestOwnerAway(t *testing.T) {
	t.Run("cut off", func(t *testing.T) { ownerAway(t, (*natstest.Link).Down, (*natstest.Link).Up) })
	t.Run("frozen", func(t *testing.T) { ownerAway(t, (*natstest.Link).Freeze, (*natstest.Link).Thaw) })
}

func ownerAway(t *testing.T, leave, back func(*natstest.Link)) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		b := newBook(t, setup(t, srv))
		link := network(t, srv, nil)
		first := reign(t, link, "a", nil)
		start := time.Now()
		for i := range 60 {
			b.set(fmt.Sprintf("t%02d", i), start.Add(time.Duration(i+1)*time.Second))
		}
		time.Sleep(10*time.Second + 500*time.Millisecond)
		leave(link)
		second := reign(t, network(t, srv, nil), "b", nil)
		if took := time.Since(start); took > 10*time.Second+lease+2*time.Second {
			t.Errorf("the next owner came after %v", took)
		}
		time.Sleep(20 * time.Second)
		back(link)
		time.Sleep(time.Minute)
		if n := len(first.names()); n != 10 {
			t.Errorf("the first owner fired %d timers, want 10", n)
		}
		if n := len(second.names()); n != 50 {
			t.Errorf("the second owner fired %d timers, want 50", n)
		}
		b.holds(0)
	})
}

// A lease that ends in the middle of firing ends the calls, and nothing fires
// after it, though the connection is there.
func TestLeaseEnds(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		b, start := newBook(t, pub), time.Now()
		for i := range 600 { // more than fire at once
			b.set(fmt.Sprint("t", i), start.Add(5*time.Second))
		}
		l, err := kv.Take(t.Context(), leases(pub), "owner", "x", kv.LeaseOptions{TTL: lease, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		f := &firer{TB: t, fire: func(ctx context.Context, _ streams.Timer) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}}
		opts := timers.Options{Owner: l, Clock: streams.NewClock(ns, pub), Fire: f.Fire, Logger: quiet}
		if err := timers.Run(t.Context(), pub, opts); err != nil {
			t.Errorf("Run returned %v", err)
		}
		if took := time.Since(start); took > lease {
			t.Errorf("Run returned after %v", took)
		}
		if n := len(f.names()); n != 128 {
			t.Errorf("%d timers fired, want those that fire at once", n)
		}
		if err := timers.Run(t.Context(), pub, opts); err != nil || len(f.names()) != 128 {
			t.Errorf("under a lease that is over, Run returned %v and %d timers have fired", err, len(f.names()))
		}
		b.holds(600)
	})
}

// Whatever becomes of any one write, each timer fires, maybe twice, and goes.
func TestFireFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				b := newBook(t, setup(t, srv))
				const many = 6          // two writes each
				var strike atomic.Int64 // counts down to the write that is struck
				link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault {
					if strike.Add(-1) == 0 {
						return fault
					}
					return natstest.Pass
				}, "mr.default.work.>", "$JS.API.STREAM.MSG.DELETE.>")
				work, err := streams.NewWork(ns, open(t, link.Connect(t)))
				if err != nil {
					t.Fatal(err)
				}
				f := reign(t, link, "a", func(ctx context.Context, timer streams.Timer) error {
					return work.Offer(ctx, timer.Item)
				})
				for k := 1; k <= 2*many; k++ {
					strike.Store(int64(k))
					for i := range many {
						b.set(fmt.Sprint("t", k, "-", i), time.Now().Add(time.Second+time.Duration(i)*time.Millisecond))
					}
					time.Sleep(time.Minute)
					if strike.Load() > 0 {
						t.Errorf("write %d was not made", k)
					}
					if n := len(slices.Compact(f.names())); n != k*many {
						t.Errorf("%d timers have fired, want %d", n, k*many)
					}
					if n := len(f.names()); n > 2*k*many { // a cut strikes others, too
						t.Errorf("%d timers have fired %d times, want each at most twice", k*many, n)
					}
				}
				link.Release()
				b.holds(0)
			})
		})
	}
}

// After the server was away, whatever was due fires within seconds.
func TestServerAway(t *testing.T) {
	for _, pause := range []time.Duration{time.Second, time.Minute} {
		t.Run(pause.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
				dir := t.TempDir()
				srv := natstest.Start(t, dir)
				setter := network(t, srv, nil)
				setup(t, srv)
				b := newBook(t, open(t, setter.Connect(t)))
				link := network(t, srv, nil)
				f := reign(t, link, "a", nil)
				start := time.Now()
				for i := range 200 {
					b.set(fmt.Sprint("t", i), start.Add(time.Duration(i*i)*20*time.Millisecond))
				}
				time.Sleep(2 * time.Second)
				for _, l := range []*natstest.Link{setter, link} {
					l.Down()
				}
				natstest.Stop(srv, setter, link)
				time.Sleep(pause)
				srv = natstest.Start(t, dir)
				for _, l := range []*natstest.Link{setter, link} {
					l.Reroute(srv)
					l.Up()
				}
				back := time.Now()
				time.Sleep(5 * time.Second)
				for i := range 200 {
					if local := fmt.Sprint("t", i); start.Add(time.Duration(i*i)*20*time.Millisecond).Before(back) && !slices.Contains(f.names(), local) {
						t.Errorf("%s has not fired", local)
					}
				}
				time.Sleep(time.Hour)
				if n := len(slices.Compact(f.names())); n != 200 {
					t.Errorf("%d timers have fired, want 200", n)
				}
				b.holds(0)
			})
		})
	}
}

// Two that both believe to be the owner fire everything, some of it twice.
func TestTwoOwners(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		b := newBook(t, pub)
		var both []*firer
		for _, key := range []string{"owner", "usurper"} {
			mine := open(t, network(t, srv, nil).Connect(t))
			l, err := kv.Take(t.Context(), leases(mine), key, key, kv.LeaseOptions{TTL: lease, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			f := &firer{TB: t}
			both = append(both, f)
			loop(t, l.Keep)
			loop(t, func(ctx context.Context) error {
				return timers.Run(ctx, mine, timers.Options{Owner: l, Clock: streams.NewClock(ns, mine), Fire: f.Fire, Logger: slog.New(slog.NewTextHandler(f, nil))})
			})
		}
		for i := range 300 {
			b.set(fmt.Sprint("t", i), time.Now().Add(time.Duration(i)*10*time.Millisecond))
		}
		time.Sleep(time.Minute)
		all := slices.Concat(both[0].names(), both[1].names())
		slices.Sort(all)
		if n := len(slices.Compact(all)); n != 300 || len(all) > 600 {
			t.Errorf("%d timers have fired, %d times; want 300, each once or twice", n, len(all))
		}
		b.holds(0)
		for _, f := range both {
			if f.log() != "" {
				t.Errorf("logged %s", f.log())
			}
		}
	})
}

// Timers that are set again after the stream was purged, or made anew, fire.
func TestStreamDamaged(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		b := newBook(t, pub)
		f := reign(t, network(t, srv, nil), "a", nil)
		stream := timerStream(t, pub)
		again := func(names ...string) {
			t.Helper()
			for _, name := range names {
				b.set(name, time.Now().Add(time.Minute))
			}
			time.Sleep(30 * time.Second)
		}
		again("a", "b", "c")
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		again("a", "d", "e")
		js, err := jetstream.New(pub.Conn())
		if err == nil {
			err = js.DeleteStream(t.Context(), ns.TimerStream())
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateStream(t.Context(), stream.CachedInfo().Config); err != nil {
			t.Fatal(err)
		}
		again("a", "f")
		time.Sleep(time.Hour)
		if d := cmp.Diff([]string{"a", "f"}, f.names()); d != "" {
			t.Errorf("fired (-want +got):\n%s", d)
		}
		b.holds(0)
	})
}

// A connection that is closed for good is the only error.
func TestConnectionClosed(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		pub := open(t, natstest.Connect(t, srv))
		l, err := kv.Take(t.Context(), leases(pub), "owner", "x", kv.LeaseOptions{TTL: lease, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, pub.Conn().Close)
		f := &firer{TB: t}
		err = timers.Run(t.Context(), pub, timers.Options{Owner: l, Clock: streams.NewClock(ns, pub), Fire: f.Fire, Logger: quiet})
		if !errors.Is(err, nats.ErrConnectionClosed) || !l.Valid() {
			t.Errorf("Run returned %v; the lease is valid: %v", err, l.Valid())
		}
	})
}
