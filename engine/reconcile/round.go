package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

const (
	// tick is how often a round looks at the clock.
	tick = time.Second
	// oftenest is how often what there is is compared with what there has to be,
	// or every half of the lease if that is longer.
	oftenest = 5 * time.Second
	// longest and shortest are how long after the last one a round begins: if
	// nothing happens, and if the patrol found something.
	longest, shortest = 10 * time.Minute, 10 * time.Second
	// ahead is how many records the reader may be ahead of the checks.
	ahead = 4 * batch
)

// round reads all jobs, from the first record on, checks what it reads, and goes
// on with what is written meanwhile until the next round begins. Its fields belong
// to the goroutine of check, unless they say otherwise.
type round struct {
	*Reconciler
	index  *index
	seen   chan record       // from the reader
	passed atomic.Uint64     // the last sequence that the reader is done with
	timers *timerSet         // until the round is complete
	alive  map[string]uint64 // the incarnations of the nodes that were there, or nil
	report Report
	asked  []*nats.Msg // to be answered when the round is complete

	began    time.Time
	patrolAt time.Time // when to do that next
	againAt  time.Time
	complete bool // it has checked everything that was there when it began
	damaged  bool // the patrol found something
	stirred  bool // a node has come or changed
}

// round is over when the next one has to begin, or ctx ends.
func (r *Reconciler) round(ctx context.Context) error {
	now := time.Now()
	g := &round{
		Reconciler: r, index: newIndex(r.opts.Clock.Now()), seen: make(chan record, ahead), asked: r.waiting,
		report: newReport(), began: now, patrolAt: now, againAt: now.Add(r.opts.Lease / 3),
	}
	r.waiting = nil
	ctx, over := context.WithCancel(ctx)
	defer over()
	loops, looping := errgroup.WithContext(ctx)
	loops.Go(func() error { return g.read(looping) })
	loops.Go(func() error { defer over(); g.check(looping); return nil })
	err := loops.Wait()
	dismiss(g.asked)
	return err
}

// check checks what the reader has seen, and does what it is time for, until the
// round is over.
func (g *round) check(ctx context.Context) {
	if err := g.opts.Clock.Fresh(ctx); err != nil {
		g.fail(ctx, err) // it goes on with what was measured before
	}
	g.timers = g.loadTimers(ctx)
	g.adopt(ctx)
	every := time.NewTicker(tick)
	defer every.Stop()
	var records []record
	for !g.over() {
		select {
		case <-ctx.Done():
			return
		case ask := <-g.asks:
			g.waiting = append(g.waiting, ask)
		case <-g.wake:
			g.adopt(ctx)
			g.pointed(ctx)
		case <-g.stir:
			g.stirred = true
		case rec := <-g.seen:
			if records = append(records, rec); len(records) == batch {
				g.look(ctx, records)
				records = records[:0]
			}
		case <-every.C:
			last := !g.complete && g.caughtUp(ctx)
			for range len(g.seen) {
				records = append(records, <-g.seen)
			}
			g.look(ctx, records)
			records = records[:0]
			g.tick(ctx)
			if last && ctx.Err() == nil {
				g.finish(ctx)
			}
			g.say(ctx)
		}
	}
}

// over reports whether the next round has to begin.
func (g *round) over() bool {
	age := time.Since(g.began)
	return g.complete && (len(g.waiting) > 0 || g.damaged && age >= shortest || age >= longest)
}

// tick does what it is time for.
func (g *round) tick(ctx context.Context) {
	now := time.Now()
	if !now.Before(g.againAt) {
		g.againAt = now.Add(g.opts.Lease / 3)
		again := g.again
		g.again = make(map[string]record)
		g.look(ctx, slices.Collect(maps.Values(again)))
	}
	if g.stirred {
		g.stirred = false
		g.place(ctx, g.survey(ctx))
	}
	if g.complete && !now.Before(g.patrolAt) {
		g.patrolAt = now.Add(max(oftenest, g.opts.Lease/2))
		g.patrol(ctx)
	}
}

// finish notes that the round is complete, and tells those who asked.
func (g *round) finish(ctx context.Context) {
	g.patrol(ctx)
	g.complete, g.timers = true, nil
	g.whole.Store(g.index)
	g.report.Total = g.Reconciler.Healed()
	g.report.Looked, g.report.Waiting = g.index.size(), len(g.again)
	g.opts.Logger.DebugContext(ctx, "jobs were looked at", "looked", g.report.Looked, "healed", g.report.Healed, "waiting", g.report.Waiting)
	answer(g.asked, g.report)
	g.asked = nil
}
