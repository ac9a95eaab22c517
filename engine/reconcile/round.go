package reconcile

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/streams"
)

const (
	// glance is how often the round looks at the clock.
	glance = time.Second
	// patrolEvery is how often what there is is compared with what there has
	// to be.
	patrolEvery = 5 * time.Second
	// longest and shortest are how long after the last one a round begins: if
	// nothing happens, and if the patrol found something.
	longest, shortest = 10 * time.Minute, 10 * time.Second
	// batch is how many records are checked together.
	batch = 1024
	// ahead is how many records the reader may be ahead of the checks.
	ahead = 4 * batch
)

// round reads all jobs, from the first record on, checks what it reads, and goes
// on with what is written meanwhile until the next round begins.
type round struct {
	*Reconciler
	index *index
	read  reading
	seen  chan record // from the reader
	timers
	report   Report
	asks     []*nats.Msg // to be answered when the round is complete
	began    time.Time
	complete bool // it has read, and checked, everything that was there
	damaged  bool // the patrol found something
	patrolAt time.Time
	againAt  time.Time
}

// round is over when the next one has to begin, or ctx ends.
func (r *Reconciler) round(ctx context.Context) error {
	now := time.Now()
	g := &round{
		Reconciler: r, index: newIndex(r.opts.Clock.Now()), seen: make(chan record, ahead), report: newReport(),
		asks: r.waiting, began: now, againAt: now.Add(r.opts.Lease / 3),
	}
	r.waiting = nil
	defer dismiss(g.asks)
	ctx, over := context.WithCancel(ctx)
	defer over()
	loops, looping := errgroup.WithContext(ctx)
	loops.Go(func() error { return g.follow(looping) })
	loops.Go(func() error { defer over(); g.check(looping); return nil })
	return loops.Wait()
}

// check checks what the reader has seen, and whatever else it is time for.
func (g *round) check(ctx context.Context) {
	g.loadTimers(ctx)
	every := time.NewTicker(glance)
	defer every.Stop()
	var records []record
	for !g.over() {
		select {
		case <-ctx.Done():
			return
		case ask := <-g.asked:
			g.waiting = append(g.waiting, ask)
		case rec := <-g.seen:
			if records = append(records, rec); len(records) == batch {
				g.look(ctx, records)
				records = records[:0]
			}
		case <-every.C:
			if !g.complete && g.caughtUp(ctx) {
				records = g.drain(ctx, records)
				g.finish(ctx)
			}
			g.look(ctx, records)
			records = records[:0]
			g.tick(ctx)
		}
	}
}

// over reports whether the next round has to begin.
func (g *round) over() bool {
	age := time.Since(g.began)
	return g.complete && (len(g.waiting) > 0 || g.damaged && age >= shortest || age >= longest)
}

// drain checks what the reader has seen so far.
func (g *round) drain(ctx context.Context, records []record) []record {
	for range len(g.seen) {
		records = append(records, <-g.seen)
	}
	g.look(ctx, records)
	return records[:0]
}

// finish notes that the round is complete, and tells those who asked.
func (g *round) finish(ctx context.Context) {
	g.patrol(ctx)
	g.complete, g.timers = true, timers{}
	g.report.Looked, g.report.Waiting = g.index.size(), len(g.again)
	level := slog.LevelDebug
	if len(g.report.Healed) > 0 {
		level = slog.LevelWarn
	}
	g.opts.Logger.Log(ctx, level, "jobs were looked at", g.report.attrs()...)
	g.answer(g.asks, g.report)
	g.asks = nil
}

// tick does what it is time for.
func (g *round) tick(ctx context.Context) {
	now := time.Now()
	if !now.Before(g.againAt) {
		g.againAt = now.Add(g.opts.Lease / 3)
		g.lookAgain(ctx)
	}
	if g.complete && !now.Before(g.patrolAt) {
		g.patrolAt = now.Add(patrolEvery)
		g.patrol(ctx)
	}
}

// timers are the timers that were set when the round began. They are read all
// at once, which is much faster than to ask for each. It may be empty.
type timers map[timerKey]struct{}

type timerKey struct {
	purpose streams.Purpose
	job     uint64 // a hash
}
