package reconcile

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/publish"
	"golang.org/x/sync/errgroup"
)

const (
	// sample is how many jobs of a queue the patrol checks in any case, and
	// bigSample if there seem to be too few items or timers. The index is
	// behind, so that may only mean that many jobs have ended.
	sample, bigSample = 64, batch
)

// patrol compares what there is with what there has to be, and checks a random
// sample. If something was lost, the next round begins soon.
func (g *round) patrol(ctx context.Context) {
	g.parents.forget()
	g.adopt(ctx)
	now := g.opts.Clock.Now()
	names := g.index.names()
	var found int
	for _, queue := range names {
		needed := g.index.items(queue, now)
		if needed == 0 {
			continue
		}
		held, err := g.tend(ctx, queue)
		if err != nil {
			g.fail(ctx, err)
			return
		}
		found += g.probe(ctx, g.index.pick(queue, size(held < needed), needsItem(now)))
	}
	mail, err := g.lacksMail(ctx, names)
	if err != nil {
		g.fail(ctx, err)
		return
	}
	for _, queue := range names {
		found += g.probe(ctx, g.index.pick(queue, size(mail), needsMail(now)))
	}
	set, _, err := g.opts.Timers.Count(ctx)
	if err != nil {
		g.fail(ctx, err)
		return
	}
	short := int(set) < g.index.dues(now)
	for _, queue := range names {
		found += g.probe(ctx, g.index.pick(queue, size(short), needsTimer(now)))
	}
	if found > 0 {
		g.damaged = true
	}
}

func size(short bool) int {
	if short {
		return bigSample
	}
	return sample
}

// probe checks the jobs of some entries of the index, and returns how many it
// healed. Entries of jobs that have moved on are forgotten: the reader finds them
// again.
func (g *round) probe(ctx context.Context, refs []ref) (healed int) {
	records := make([]record, len(refs))
	var calls errgroup.Group
	calls.SetLimit(atOnce)
	for i, r := range refs {
		calls.Go(func() error {
			cur, err := g.get(ctx, publish.Query{Sequence: r.sequence})
			if publish.Gone(err) {
				g.index.forget(r)
				return nil
			}
			records[i] = cur
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		g.fail(ctx, err)
	}
	records = slices.DeleteFunc(records, func(rec record) bool {
		_, again := g.again[rec.id]
		return again || !rec.goes()
	})
	return g.look(ctx, records)
}
