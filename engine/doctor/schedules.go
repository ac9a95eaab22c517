package doctor

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

// schedule is what people have said about one, and how far the owner is with it.
type schedule struct {
	name    string
	def     *tick.Definition
	problem error // why there is no def
	cursor  tick.Cursor
}

// seeSchedules reads all schedules, and the cursors that belong to none.
func (c *chart) seeSchedules(ctx context.Context) error {
	c.schedules, c.strays = nil, nil
	cursors := scheduler.Cursors(c.pub, c.opts.Namespace)
	known, err := cursors.ListStale(ctx, scheduler.Key("*")) // first: what is defined afterwards has none yet
	if err != nil {
		return err
	}
	byKey := make(map[string]tick.Cursor, len(known))
	for _, cursor := range known {
		byKey[cursor.Key] = cursor.Value
	}
	stored, err := scheduler.Bucket(c.pub, c.opts.Namespace, nil).ListStale(ctx, scheduler.Key("*"))
	if err != nil {
		return err
	}
	for _, entry := range stored {
		s := schedule{name: scheduleOf(entry.Key), cursor: byKey[entry.Key]}
		s.def, s.problem = scheduler.Compile(entry)
		c.schedules = append(c.schedules, s)
		delete(byKey, entry.Key)
	}
	slices.SortFunc(c.schedules, func(a, b schedule) int { return cmp.Compare(a.name, b.name) })
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		if len(c.strays) == mostSure {
			break
		}
		_, err := cursors.Get(ctx, key) // it may have gone with its definition just now
		switch {
		case err == nil:
			c.strays = append(c.strays, scheduleOf(key))
		case !errors.Is(err, kv.ErrNotFound):
			return err
		}
	}
	return nil
}

// scheduleOf returns the schedule that has a key.
func scheduleOf(key string) string { return strings.TrimPrefix(key, scheduler.Key("")) }

// ticks reports whether a schedule has ticks to come, as far as people say.
func (s schedule) ticks() bool { return s.def != nil && !s.def.IsPaused() && !s.halted() }

// halted reports whether a schedule has halted, and nobody has said that it goes on.
func (s schedule) halted() bool {
	return s.def != nil && s.cursor.Halted != nil && s.cursor.Halted.Revision == s.def.Revision
}

// overdue returns since when the owner should have done something for a schedule, or
// nothing if it need not.
func (s schedule) overdue() (since time.Time) {
	switch {
	case !s.ticks():
	case s.cursor.Revision != s.def.Revision:
		return s.def.Stored
	default:
		return s.cursor.Next
	}
	return time.Time{}
}

// checkSchedules looks for definitions that cannot be used, and for cursors of none.
func checkSchedules(c *chart) (found []Finding) {
	for _, s := range c.schedules {
		if s.problem != nil {
			found = append(found, wrong("apply it again with a build that knows it, or delete it with millrace schedule delete "+s.name,
				"schedule %s cannot be used: %s", s.name, strings.ReplaceAll(s.problem.Error(), "\n", "; ")))
		}
	}
	if n := len(c.strays); n > 0 {
		found = append(found, warning("see whether there is an owner, which deletes them",
			"%s of schedules that are not there: %s", count(n, "cursor"), brief(c.strays)))
	}
	return found
}

// checkHalted looks for schedules that have paused themselves.
func checkHalted(c *chart) (found []Finding) {
	for _, s := range c.schedules {
		if s.halted() {
			found = append(found, warning("see its jobs with millrace job list --schedule "+s.name+", and let it go on with millrace schedule resume "+s.name,
				"schedule %s has halted: %s in a row failed", s.name, count(s.cursor.Halted.Failures, "job")))
		}
	}
	return found
}

// checkTicks looks for ticks that the owner has not seen to.
func checkTicks(c *chart) []Finding {
	var names []string
	oldest := c.now
	for _, s := range c.schedules {
		if since := s.overdue(); !since.IsZero() && since.Before(c.now.Add(-late)) {
			names = append(names, s.name)
			if since.Before(oldest) {
				oldest = since
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{wrong("see whether there is an owner, and its log", "%s %s not seen to, by up to %v: %s",
		count(len(names), "schedule"), either(len(names), "is", "are"), c.now.Sub(oldest).Round(time.Second), brief(names))}
}

// checkTargets looks for schedules whose jobs no node would run.
func checkTargets(c *chart) (found []Finding) {
	targets := map[place][]string{}
	for _, s := range c.schedules {
		if s.ticks() {
			at := place{s.def.TargetQueue(), s.def.TargetKind()}
			targets[at] = append(targets[at], s.name)
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(targets), byPlace) {
		handles := func(m nodes.Member) bool { return slices.Contains(m.Kinds, at.kind) }
		if names := targets[at]; !slices.ContainsFunc(c.taking(at.queue), handles) {
			found = append(found, warning("start a worker with that kind", "no node has a handler for kind %s and takes from queue %s, as %s %s: %s",
				at.kind, at.queue, count(len(names), "schedule"), either(len(names), "wants", "want"), brief(names)))
		}
	}
	return found
}
