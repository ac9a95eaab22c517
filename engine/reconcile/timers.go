package reconcile

import (
	"context"
	"hash/maphash"

	"github.com/millrace/millrace/streams"
)

// timerSet is the timers that were set at a time. They are read all at once,
// which is much faster than asking for each.
type timerSet struct {
	seed maphash.Seed
	has  map[uint64]struct{} // hashes
}

// timerKey is what is known of the timers that were read.
type timerKey struct {
	purpose      streams.Purpose
	queue, local string
}

// loadTimers reads the timers. If it cannot, the set lacks some.
func (g *round) loadTimers(ctx context.Context) *timerSet {
	set := &timerSet{seed: maphash.MakeSeed(), has: make(map[uint64]struct{})}
	err := g.opts.Timers.Subjects(ctx, func(purpose streams.Purpose, queue, local string) error {
		set.has[maphash.Comparable(set.seed, timerKey{purpose, queue, local})] = struct{}{}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		g.opts.Logger.WarnContext(ctx, "timers are looked for one by one, since they could not be listed", "err", err)
	}
	return set
}

// isSet reports whether a timer is there. One that was read may be another time
// for the same job: should that be too early, the job sets its timer again.
func (g *round) isSet(ctx context.Context, t streams.Timer) (bool, error) {
	if g.timers != nil {
		if _, ok := g.timers.has[maphash.Comparable(g.timers.seed, timerKey{t.Purpose, t.Queue, t.Local})]; ok {
			return true, nil
		}
	}
	return g.opts.Timers.Has(ctx, t)
}
