package streams_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// limitStream gives a stream limits.
func (w *world) limitStream(name string, bytes, messages int64) {
	w.Helper()
	js := open(w, w.nc)
	config := must(js.Stream(w.Context(), name))(w).CachedInfo().Config
	must(js.UpdateStream(w.Context(), limited(config, bytes, messages)))(w)
}

// limitAccount gives an account storage limits, by tier.
func limitAccount(t testing.TB, srv *server.Server, tiers map[string]int64) {
	t.Helper()
	limits := map[string]server.JetStreamAccountLimits{}
	for tier, bytes := range tiers {
		limits[tier] = server.JetStreamAccountLimits{MaxMemory: -1, MaxStore: bytes, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1}
	}
	if err := srv.GlobalAccount().UpdateJetStreamLimits(limits); err != nil {
		t.Fatal(err)
	}
}

// Every limit that counts refuses new jobs at nine tenths, and takes them again
// once there is room.
func TestLimits(t *testing.T) {
	const many, size = 100, 1000
	jobs := "KV_" + ns.Bucket(streams.Jobs)
	for _, test := range []struct {
		name  string
		limit func(*world, *server.Server)
		want  []string // nothing: there is room
	}{
		{"none", func(*world, *server.Server) {}, nil},
		{
			"messages", func(w *world, _ *server.Server) { w.limitStream(ns.WorkStream(), -1, 111) },
			[]string{"stream mr_default_work holds 100 of 111 messages", "90%", "raise its max_msgs limit", "delete jobs"},
		},
		{"more messages", func(w *world, _ *server.Server) { w.limitStream(ns.WorkStream(), -1, 112) }, nil},
		{
			"bytes", func(w *world, _ *server.Server) { w.limitStream(ns.WorkStream(), 120_000, -1) },
			[]string{"stream mr_default_work holds 11", " of 120000 bytes", "raise its max_bytes limit"},
		},
		{"more bytes", func(w *world, _ *server.Server) { w.limitStream(ns.WorkStream(), 150_000, -1) }, nil},
		{
			"account", func(_ *world, srv *server.Server) { limitAccount(t, srv, map[string]int64{"": 120_000}) },
			[]string{"the account holds 11", " of 120000 bytes", "raise its storage limit"},
		},
		{"larger account", func(_ *world, srv *server.Server) { limitAccount(t, srv, map[string]int64{"": 200_000}) }, nil},
		{"others' streams", func(w *world, _ *server.Server) {
			w.limitStream(ns.DeadStream(), 1, 1)
			w.limitStream(jobs, 1<<20, 10)
			w.limitStream(ns.TimerStream(), 1<<20, 10)
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				w := newWorld(t, connect(t, srv))
				test.limit(w, srv)
				limits := streams.NewLimits(ns, publisher(t, w.nc))
				if err := limits.Check(t.Context()); err != nil {
					t.Errorf("while it is empty: %v", err)
				}
				for i := range many {
					item := streams.Item{Queue: "mail", Local: fmt.Sprint(i), Record: make([]byte, size)}
					if err := w.work.Offer(t.Context(), item); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				err := limits.Check(t.Context())
				if test.want == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				oneLine(t, err, append(test.want, "streams: storage is nearly full: ")...)
				if !errors.Is(err, streams.ErrFull) {
					t.Errorf("got %v, want ErrFull", err)
				}
				if err := w.work.Withdraw(t.Context(), "", "mail", "*", math.MaxUint64); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				if err := limits.Check(t.Context()); err != nil {
					t.Errorf("when there is room again: %v", err)
				}
			})
		})
	}
}

// Where a limit is reached nothing that is stored is thrown away: not an item,
// and not a timer.
func TestFullStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	timers := must(streams.NewTimers(ns, publisher(t, w.nc)))(t)
	w.limitStream(ns.WorkStream(), -1, 2)
	w.limitStream(ns.TimerStream(), -1, 2)
	w.offer("a", "b")
	for _, local := range []string{"a", "b", "b"} { // replacing one needs no room
		if err := timers.Set(t.Context(), due(noon, local)); err != nil {
			t.Fatal(err)
		}
	}
	oneLine(t, w.work.Offer(t.Context(), streams.Item{Queue: "mail", Local: "c"}), "streams: offer mail.c", "maximum messages exceeded")
	oneLine(t, timers.Set(t.Context(), due(noon, "c")), "streams: set timer due of mail.c", "maximum messages exceeded")
	if got := locals(w.pull(w.puller(), 2, time.Minute)); got != "a b" {
		t.Errorf("got items %s, want a b", got)
	}
	if timer := must(timers.Get(t.Context(), 1))(t); timer.Local != "a" {
		t.Errorf("got the timer of %s, want that of a", timer.Local)
	}
}

// An account that has limits by replicas is full when that of our streams is.
func TestLimitsByTier(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		limitAccount(t, srv, map[string]int64{"R1": 100_000, "R3": 1})
		w := newWorld(t, connect(t, srv))
		limits := streams.NewLimits(ns, publisher(t, w.nc))
		if err := limits.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if err := w.work.Offer(t.Context(), streams.Item{Queue: "mail", Local: "a", Record: make([]byte, 92_000)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		oneLine(t, limits.Check(t.Context()), "the account, with 1 replicas, holds 9", " of 100000 bytes")
	})
}

// watched is a work queue that may hold ten items, the limits as somebody sees
// them who is connected over a link of his own, and how often he asked.
func watched(t *testing.T, f func(w *world, limits *streams.Limits, link *natstest.Link, asked *atomic.Int64)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		w.limitStream(ns.WorkStream(), -1, 10)
		asked := new(atomic.Int64)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { asked.Add(1); return natstest.Pass }, "$JS.API.INFO")
		f(w, streams.NewLimits(ns, publisher(t, link.Connect(t))), link, asked)
	})
}

// One caller in a second measures, and one in a tenth of a second when a limit
// is near.
func TestLimitsAge(t *testing.T) {
	watched(t, func(w *world, limits *streams.Limits, _ *natstest.Link, asked *atomic.Int64) {
		for i, want := range []int64{1, 1, 1, 1, 1, 1, 1, 1, 10, 10, 10} { // so often in a second, with i items
			start := time.Now()
			for time.Since(start) < time.Second {
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						if full := limits.Check(w.Context()) != nil; full != (i >= 9) && asked.Load() > 1 {
							w.Errorf("with %d items: full is %v", i, full)
						}
					})
				}
				all.Wait()
				time.Sleep(10 * time.Millisecond)
			}
			if got := asked.Swap(0); got != want && i != 8 { // it gets near at some moment
				w.Errorf("with %d items: measured %d times in a second, want %d", i, got, want)
			}
			if i < 10 {
				w.offer(fmt.Sprint(i))
			}
		}
	})
}

// While the server is away, or does not answer, what was found last counts.
func TestLimitsWhileAway(t *testing.T) {
	watched(t, func(w *world, limits *streams.Limits, link *natstest.Link, _ *atomic.Int64) {
		link.Down()
		time.Sleep(time.Second)
		if err := limits.Check(w.Context()); err != nil {
			w.Errorf("when nothing is known: %v", err)
		}
		link.Up()
		w.offer("1", "2", "3", "4", "5", "6", "7", "8", "9")
		time.Sleep(5 * time.Second)
		oneLine(w, limits.Check(w.Context()), "9 of 10 messages")
		link.Down()
		for range 5 {
			time.Sleep(time.Minute)
			oneLine(w, limits.Check(w.Context()), "9 of 10 messages")
		}
		link.Up()
		time.Sleep(5 * time.Second)
		ended, end := context.WithCancel(w.Context())
		end()
		if err := w.work.Withdraw(w.Context(), "", "mail", "*", math.MaxUint64); err != nil {
			w.Fatal(err)
		}
		oneLine(w, limits.Check(ended), "9 of 10 messages")
		time.Sleep(time.Second)
		if err := limits.Check(w.Context()); err != nil {
			w.Errorf("the server is there again, with room: %v", err)
		}
	})
}

// Whoever waits until somebody else has measured does so no longer than he wants.
func TestLimitsGiveUp(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		newWorld(t, connect(t, srv))
		link := natstest.NewLink(t, srv, natstest.HoldFirst(nil), "$JS.API.INFO")
		natstest.GivesUp(t, link, streams.NewLimits(ns, publisher(t, link.Connect(t))).Check)
	})
}

// A user who may not ask is not kept waiting more than once a second, and is not
// refused.
func TestLimitsDenied(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		srv := natstest.StartWith(t, &server.Options{DontListen: true, JetStream: true, Users: users(map[string]*server.Permissions{"u": except("$JS.API.INFO")})})
		ensure(t, connect(t, srv, nats.UserInfo("admin", "x")), streams.Options{})
		limits := streams.NewLimits(ns, publisher(t, connect(t, srv, nats.UserInfo("u", "x"))))
		start := time.Now()
		for range 1000 {
			if err := limits.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a thousand checks took %v", took)
		}
	})
}

// A server that has no room says so in its own way, which is no reason to guess.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	full := &jetstream.APIError{Code: 503, ErrorCode: 10023, Description: "insufficient resources"}
	err := streams.NoRoom(fmt.Errorf("kv: create: %w", full))
	if !errors.Is(err, streams.ErrFull) || !errors.Is(err, full) || !strings.Contains(err.Error(), "max_file_store") {
		t.Errorf("got %v, want that storage is full, and what to do", err)
	}
	if again := streams.NoRoom(err); again.Error() != err.Error() {
		t.Errorf("the second time it became %v", again)
	}
	for _, other := range []error{nil, context.Canceled, &jetstream.APIError{Code: 503, ErrorCode: 10008}} {
		if err := streams.NoRoom(other); !errors.Is(err, other) || errors.Is(err, streams.ErrFull) {
			t.Errorf("got %v of %v", err, other)
		}
	}
}
