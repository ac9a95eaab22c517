package reconcile

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

const (
	// batch is how many records are checked together: the most that
	// [streams.Work.Has] takes.
	batch = 1024
	// atOnce bounds how many jobs are looked for or healed at the same time. A
	// node that is frozen takes two seconds to not answer for one.
	atOnce = 256
	// warnEvery bounds how often the log says that something failed.
	warnEvery = time.Minute
)

// look finds out which of some jobs lack what they need, and makes up for it. It
// returns how many did. Those for which it could not, and those whose node has the
// last word, it looks at again soon.
func (g *round) look(ctx context.Context, records []record) (healed int) {
	for chunk := range slices.Chunk(records, batch) {
		if ctx.Err() != nil || !g.opts.Owner.Valid() {
			return healed
		}
		suspects := g.without(ctx, g.each(ctx, chunk, g.weigh))
		healed += g.heal(ctx, g.each(ctx, suspects, g.unmoved))
	}
	return healed
}

// weigh reports whether a job may lack something, by its record and its timers. It
// notes whether that can be an item only.
func (g *round) weigh(ctx context.Context, rec *record) (bool, error) {
	rec.item = false
	if rec.Parent != "" && rec.State != machine.Removing {
		if alone, err := g.alone(ctx, rec); alone || err != nil || !rec.goes() {
			return alone, err
		}
	}
	if !rec.goes() || rec.Cancel || g.orphaned(rec) || g.places.misplaced(rec) {
		return true, nil // there is something to do
	}
	fired := false
	for _, t := range rec.timers() {
		has, err := g.isSet(ctx, t)
		if !has && err == nil && t.Purpose == streams.PurposeDue && !rec.Pinned { // or one that gets children then
			t.Purpose = streams.PurposeOutset
			has, err = g.isSet(ctx, t)
			t.Purpose = streams.PurposeDue
		}
		switch {
		case err != nil:
			return false, err
		case has:
		case t.Purpose == streams.PurposeDue && !t.At.After(g.opts.Clock.Now()):
			fired = true
		default:
			return true, nil
		}
	}
	rec.item = (!rec.State.Delayed() || fired) && rec.State != machine.Waiting && rec.Turn == "" && !rec.homeless()
	return rec.item, nil
}

// timers returns the timers that there have to be for a job.
func (r *record) timers() []streams.Timer {
	var list []streams.Timer
	add := func(purpose streams.Purpose, ms int64) {
		if ms != 0 {
			queue, local, _ := name.SplitJobID(r.id) // the reader has done that before
			list = append(list, streams.Timer{Purpose: purpose, At: time.UnixMilli(ms), Queue: queue, Local: local})
		}
	}
	add(streams.PurposeDue, r.Due)
	add(streams.PurposeQueued, r.StartBy)
	add(streams.PurposeDeadline, r.Deadline)
	return list
}

// without returns records without those that may lack an item only, and have one.
func (g *round) without(ctx context.Context, records []record) (list []record) {
	var refs []streams.Ref
	for _, rec := range records {
		if rec.item {
			refs = append(refs, streams.Ref{ID: rec.id, Node: rec.Pin})
		}
	}
	if len(refs) == 0 {
		return records
	}
	has, err := g.opts.Work.Has(ctx, refs)
	if err != nil {
		g.fail(ctx, err)
	}
	for _, rec := range records {
		switch {
		case rec.item && err != nil:
			g.again[rec.id] = rec
		case !rec.item || !has[rec.id]:
			list = append(list, rec)
		}
	}
	return list
}

// unmoved reports whether a record is still there. Then what its job lacked a
// moment ago it has lacked for as long as the reader is behind.
func (g *round) unmoved(ctx context.Context, rec *record) (bool, error) {
	cur, err := g.get(ctx, publish.Query{Sequence: rec.sequence})
	if publish.Gone(err) {
		return false, nil
	}
	return cur.id == rec.id, err
}

// heal makes up for what jobs lack, and returns how many lacked something.
func (g *round) heal(ctx context.Context, records []record) (healed int) {
	g.meet(ctx, records)
	var mu sync.Mutex
	again := g.each(ctx, records, func(ctx context.Context, rec *record) (bool, error) {
		lacks, err := g.healOne(ctx, rec)
		if len(lacks) > 0 {
			mu.Lock()
			defer mu.Unlock()
			healed++
			g.note(ctx, rec, lacks)
		}
		return rec.State == machine.Running, err // its node has the last word
	})
	for _, rec := range again {
		g.again[rec.id] = rec
	}
	return healed
}

// healOne makes up for what a job lacks.
func (g *round) healOne(ctx context.Context, rec *record) ([]store.Lack, error) {
	switch {
	case !g.opts.Owner.Valid():
		return nil, kv.ErrLeaseLost
	case rec.stays():
		return g.opts.Store.HealExpiry(ctx, rec.id)
	case g.places.misplaced(rec):
		if moved, err := g.opts.Store.Place(ctx, rec.id, g.places.choose); moved || err != nil {
			return ruledOn(moved), err
		}
	}
	lacks, err := g.opts.Store.Heal(ctx, rec.id)
	if err == nil && rec.Pinned && g.places.known() && slices.Contains(lacks, store.LackNode) { // it may be for another one now
		_, err = g.opts.Store.Place(ctx, rec.id, g.places.choose)
	}
	return lacks, err
}

func ruledOn(moved bool) []store.Lack {
	if moved {
		return []store.Lack{store.LackPlace}
	}
	return nil
}

// note counts what was healed.
func (g *round) note(ctx context.Context, rec *record, lacks []store.Lack) {
	g.opts.Logger.DebugContext(ctx, "job healed", "job", rec.id, "state", rec.State, "lacks", lacks)
	for _, lack := range lacks {
		g.report.Healed[lack]++
		g.unsaid[lack]++
	}
	g.count(lacks)
}

// say logs what was healed since it said so last. That nodes come and go is no
// surprise.
func (g *round) say(ctx context.Context) {
	if n := g.unsaid[store.LackNode] + g.unsaid[store.LackPlace]; n > 0 {
		g.opts.Logger.InfoContext(ctx, "jobs of nodes that are gone go on", "jobs", n)
		delete(g.unsaid, store.LackNode)
		delete(g.unsaid, store.LackPlace)
	}
	if len(g.unsaid) > 0 {
		g.opts.Logger.WarnContext(ctx, "jobs had lost what drives them", "healed", g.unsaid)
		g.unsaid = make(map[store.Lack]int)
	}
}

// each calls f for each record, for many at the same time, and returns those for
// which it says true. Those for which it fails are looked at again soon.
func (g *round) each(ctx context.Context, records []record, f func(context.Context, *record) (bool, error)) (list []record) {
	keep, errs := make([]bool, len(records)), make([]error, len(records))
	var calls errgroup.Group
	calls.SetLimit(atOnce)
	for i := range records {
		calls.Go(func() error {
			keep[i], errs[i] = f(ctx, &records[i])
			return nil
		})
	}
	_ = calls.Wait() // each has an error of its own
	for i, rec := range records {
		switch {
		case errs[i] != nil:
			g.again[rec.id] = rec
			g.fail(ctx, errs[i])
		case keep[i]:
			list = append(list, rec)
		}
	}
	return list
}

// fail logs that something failed.
func (g *round) fail(ctx context.Context, err error) {
	if ctx.Err() == nil && time.Since(g.warned) >= warnEvery {
		g.warned = time.Now()
		g.opts.Logger.WarnContext(ctx, "not all jobs could be looked at, some are again soon", "err", err)
	}
}
