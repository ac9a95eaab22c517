package streams_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// keepers is a namespace that is to keep a hundred records, and how often they
// were counted.
func keepers(t *testing.T, f func(w *world, limits *streams.Limits, link *natstest.Link, counted *atomic.Int64)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		counted := new(atomic.Int64)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { counted.Add(1); return natstest.Pass },
			"$JS.API.STREAM.INFO.KV_mr_default_jobs")
		limits := streams.NewLimits(ns, publisher(t, link.Connect(t)), streams.LimitsOptions{MostEnded: 100})
		f(w, limits, link, counted)
	})
}

// keep stores records of jobs up to the n-th.
func (w *world) keep(n int) {
	w.Helper()
	for i := range n {
		if err := w.nc.Publish(fmt.Sprintf("$KV.mr_default_jobs.mail.%d", i), nil); err != nil {
			w.Fatal(err)
		}
	}
	if err := w.nc.Flush(); err != nil {
		w.Fatal(err)
	}
}

// What is kept above the limit is kept for less time, the more there is, and for
// ten minutes at least. What goes on does not count.
func TestShrink(t *testing.T) {
	keepers(t, func(w *world, limits *streams.Limits, _ *natstest.Link, _ *atomic.Int64) {
		timers := must(streams.NewTimers(ns, publisher(w, w.nc)))(w)
		const day = 24 * time.Hour
		step := func(records int, of, want time.Duration) {
			w.Helper()
			w.keep(records)
			time.Sleep(time.Minute)
			if got := limits.Shrink(w.Context(), of); got != want {
				w.Errorf("with %d records %v become %v, want %v", records, of, got, want)
			}
		}
		step(0, day, day)
		step(100, day, day)
		step(105, day, day/2)
		step(110, day, day/4)
		step(110, 14*day, 14*day/4)
		step(110, 5*time.Minute, 5*time.Minute)
		step(110, 30*time.Minute, 10*time.Minute)
		step(200, 14*day, 10*time.Minute)
		for i := range 50 {
			w.offer(fmt.Sprint(i))
			if err := timers.Set(w.Context(), due(time.Now().Add(day), fmt.Sprint(50+i))); err != nil {
				w.Fatal(err)
			}
		}
		step(200, day, day)
		step(205, day, day/2)
		if got := must(limits.Ended(w.Context()))(w); got != 105 {
			w.Errorf("counted %d records of jobs that have ended, want 105", got)
		}
	})
}

// One caller in half a minute counts, or in five seconds near the limit.
func TestShrinkAge(t *testing.T) {
	keepers(t, func(w *world, limits *streams.Limits, _ *natstest.Link, counted *atomic.Int64) {
		minute := func(want int64) {
			w.Helper()
			for range 120 {
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() { limits.Shrink(w.Context(), time.Hour) })
				}
				all.Wait()
				time.Sleep(500 * time.Millisecond)
			}
			if got := counted.Swap(0); got != want {
				w.Errorf("counted %d times in a minute, want %d", got, want)
			}
		}
		minute(2)
		w.keep(60)
		time.Sleep(time.Minute)
		minute(12)
	})
}

// While the server is away what was counted last counts, and nothing is waited
// for more often.
func TestShrinkWhileAway(t *testing.T) {
	keepers(t, func(w *world, limits *streams.Limits, link *natstest.Link, _ *atomic.Int64) {
		link.Down()
		time.Sleep(time.Second)
		if got := limits.Shrink(w.Context(), time.Hour); got != time.Hour {
			w.Errorf("when nothing is known an hour becomes %v", got)
		}
		w.keep(105)
		link.Up()
		time.Sleep(time.Minute)
		for range 3 {
			if got := limits.Shrink(w.Context(), time.Hour); got != 30*time.Minute {
				w.Errorf("an hour becomes %v, want half of it", got)
			}
			link.Freeze()
			time.Sleep(time.Minute)
		}
		link.Thaw()
	})
}
