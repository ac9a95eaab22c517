package scheduler

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/timers/tick"
)

// wants are jobs that wait for turns of a schedule: first those that somebody
// triggered, which are seen to like ticks, however many others wait; then the oldest
// tick first.
type wants []tick.Want

func compare(a, b tick.Want) int {
	return cmp.Or(rank(a)-rank(b), a.At.Compare(b.At), strings.Compare(a.ID, b.ID))
}

func rank(w tick.Want) int {
	if w.By == machine.ByHand && !w.Redriven {
		return 0
	}
	return 1
}

// with returns w with one more, or as it is now.
func (w wants) with(one tick.Want) wants {
	if one.By == machine.ByHand { // it may have had another rank
		w = w.without(func(id string) bool { return id == one.ID })
	}
	i, found := slices.BinarySearchFunc(w, one, compare)
	if found {
		w[i] = one
		return w
	}
	return slices.Insert(w, i, one)
}

// first returns the first n.
func (w wants) first(n int) []tick.Want { return w[:min(n, len(w))] }

// without returns those whose IDs are not gone.
func (w wants) without(gone func(id string) bool) wants {
	return slices.DeleteFunc(w, func(one tick.Want) bool { return gone(one.ID) })
}

// readsAtOnce bounds how many jobs of a schedule are read at a time.
const readsAtOnce = 16

// readJobs reads jobs from the leader and calls visit with each, one after the other.
// One that is not there is an entry with nothing but a key; one that a newer build
// wrote is left out.
func (s *Scheduler) readJobs(ctx context.Context, ids []string, visit func(store.Entry)) error {
	entries := make([]store.Entry, len(ids))
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(readsAtOnce)
	for i, id := range ids {
		g.Go(func() (err error) {
			entries[i], err = s.opts.Store.Get(reading, id)
			switch {
			case errors.Is(err, store.ErrNotFound):
				entries[i], err = store.Entry{Key: id}, nil
			case errors.Is(err, store.ErrUnreadable):
				entries[i], err = store.Entry{}, nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Key != "" {
			visit(entry)
		}
	}
	return nil
}

// ask takes in which jobs are said to wait for a turn. The leader is asked whether it
// is so, once for each that it has answered.
func (s *Scheduler) ask(ctx context.Context, c *course, n *news) error {
	for id := range n.wants {
		add(&c.unsure, id)
	}
	err := s.readJobs(ctx, slices.Collect(maps.Keys(c.unsure)), func(entry store.Entry) {
		if j := entry.Value; j.Wait == machine.WaitTurn && j.Tick != nil && j.Tick.Schedule == c.name {
			c.wants = c.wants.with(tick.WantOf(j))
		}
	})
	if err == nil {
		c.unsure = nil
	}
	return err
}
