package reconcile

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// atOnce bounds how many jobs are looked for or healed at the same time. A node
// that is frozen takes two seconds to not answer for one.
const atOnce = 256

// verdict is what is known of a job while it is looked at.
type verdict int

const (
	fine     verdict = iota
	needItem         // fine if it has an item
	suspect          // it may lack something, or has to be told something
)

// look finds out which of some jobs lack what they need, and makes up for it. It
// returns how many did. Those for which it could not, and those whose node has the
// last word, it looks at again soon.
func (g *round) look(ctx context.Context, records []record) (healed int) {
	for chunk := range slices.Chunk(records, batch) {
		if ctx.Err() != nil || !g.opts.Owner.Valid() {
			return healed
		}
		suspects, err := g.suspects(ctx, chunk)
		if err != nil {
			g.lookLater(ctx, chunk, err)
			continue
		}
		healed += g.heal(ctx, suspects)
	}
	return healed
}

// lookLater lets jobs be looked at again soon, since something failed.
func (g *round) lookLater(ctx context.Context, records []record, err error) {
	for _, rec := range records {
		g.again[rec.id] = rec
	}
	g.fail(ctx, err)
}

// suspects returns those records whose jobs lacked something while they were
// stored like that, before and after.
func (g *round) suspects(ctx context.Context, records []record) ([]record, error) {
	verdicts := make([]verdict, len(records))
	err := each(ctx, len(records), func(ctx context.Context, i int) (err error) {
		verdicts[i], err = g.weigh(ctx, records[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for i, rec := range records {
		if verdicts[i] == needItem {
			ids = append(ids, rec.id)
		}
	}
	has, err := g.offered(ctx, ids)
	if err != nil {
		return nil, err
	}
	var list []record
	for i, rec := range records {
		if verdicts[i] == suspect || verdicts[i] == needItem && !has[rec.id] {
			list = append(list, rec)
		}
	}
	return g.unmoved(ctx, list)
}

// offered returns which jobs have an item.
func (g *round) offered(ctx context.Context, ids []string) (map[string]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return g.opts.Work.Has(ctx, ids)
}

// weigh returns what can be told of a job by its record and its timers.
func (g *round) weigh(ctx context.Context, rec record) (verdict, error) {
	if !rec.goes() || rec.Cancel {
		return suspect, nil
	}
	fired := false
	for _, t := range rec.timers() {
		has, err := g.isSet(ctx, t)
		switch {
		case err != nil:
			return fine, err
		case has:
		case t.Purpose == streams.PurposeDue && !t.At.After(g.opts.Clock.Now()):
			fired = true
		default:
			return suspect, nil
		}
	}
	if rec.State.Delayed() && !fired {
		return fine, nil
	}
	return needItem, nil
}

// timers returns the timers that there have to be for a job.
func (r record) timers() []streams.Timer {
	var list []streams.Timer
	add := func(purpose streams.Purpose, ms int64) {
		if ms != 0 {
			queue, local, _ := name.SplitJobID(r.id) // the reader checked it
			list = append(list, streams.Timer{Purpose: purpose, At: time.UnixMilli(ms), Queue: queue, Local: local})
		}
	}
	add(streams.PurposeDue, r.Due)
	add(streams.PurposeQueued, r.StartBy)
	add(streams.PurposeDeadline, r.Deadline)
	return list
}

// unmoved returns those records that are still there.
func (g *round) unmoved(ctx context.Context, records []record) ([]record, error) {
	there := make([]bool, len(records))
	err := each(ctx, len(records), func(ctx context.Context, i int) error {
		cur, err := g.get(ctx, query{Seq: records[i].sequence})
		there[i] = err == nil && cur.id == records[i].id
		if kv.Gone(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var list []record
	for i, rec := range records {
		if there[i] {
			list = append(list, rec)
		}
	}
	return list, nil
}

// heal makes up for what jobs lack, and returns how many lacked something.
func (g *round) heal(ctx context.Context, records []record) (healed int) {
	type outcome struct {
		lacks []store.Lack
		err   error
	}
	outcomes := make([]outcome, len(records))
	_ = each(ctx, len(records), func(ctx context.Context, i int) error { // each has its own error
		o := &outcomes[i]
		o.lacks, o.err = g.healOne(ctx, records[i])
		return nil
	})
	var failed error
	for i, rec := range records {
		o := outcomes[i]
		if len(o.lacks) > 0 {
			healed++
			g.note(ctx, rec, o.lacks)
		}
		if o.err != nil {
			failed = o.err
		}
		// Its node has the last word, or it may lack something else besides.
		open := rec.State == machine.Running || slices.Contains(o.lacks, store.LackTimer) && !rec.State.Delayed()
		if o.err != nil || open {
			g.again[rec.id] = rec
		}
	}
	if failed != nil {
		g.fail(ctx, failed)
	}
	return healed
}

// healOne makes up for what a job lacks.
func (g *round) healOne(ctx context.Context, rec record) ([]store.Lack, error) {
	switch {
	case !g.opts.Owner.Valid():
		return nil, kv.ErrLeaseLost
	case rec.stays():
		return g.opts.Store.HealExpiry(ctx, rec.id)
	}
	return g.opts.Store.Heal(ctx, rec.id)
}

// note counts what was healed.
func (g *round) note(ctx context.Context, rec record, lacks []store.Lack) {
	g.opts.Logger.DebugContext(ctx, "job healed", "job", rec.id, "state", rec.State, "lacks", lacks)
	for _, lack := range lacks {
		g.report.Healed[lack]++
	}
	g.count(lacks)
}

// fail logs that something failed.
func (g *round) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		g.opts.Logger.WarnContext(ctx, "jobs are looked at again, since not all could be", "err", err)
	}
}

// each calls f for 0 to n-1, many at the same time, and returns the first error.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	calls, calling := errgroup.WithContext(ctx)
	calls.SetLimit(atOnce)
	for i := range n {
		calls.Go(func() error { return f(calling, i) })
	}
	return calls.Wait()
}
