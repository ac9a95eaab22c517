package scheduler_test

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

// reach is how far a stored cursor is.
type reach struct {
	stored time.Time
	past   time.Time // the last tick that is decided
	next   time.Time // the tick to come
	told   time.Time // the last tick before those that have no record yet
}

// reach notes how far a cursor is. The caller holds the lock.
func (m *model) reach(entry kv.Entry[tick.Cursor]) {
	c := entry.Value
	r := reach{stored: entry.Stored, past: c.Past, next: c.Next, told: c.Past}
	early := func(at time.Time) {
		if at = at.Add(-time.Millisecond); at.Before(r.told) {
			r.told = at
		}
	}
	for _, act := range c.Doing {
		if act.By == "" && !act.At.IsZero() {
			early(act.At)
		}
	}
	if c.Burst != nil && c.Burst.Roll != nil {
		early(c.Burst.Roll.At)
	}
	name := strings.TrimPrefix(entry.Key, scheduler.Key(""))
	m.reached[name] = append(m.reached[name], r)
}

// isBlurred reports whether a tick was due before an edit after which it may not be
// counted exactly, and no owner had got that far. The tick to come is made in any case, or
// declined, unless its schedule is deleted.
func (m *model) isBlurred(name string, ms int64) bool {
	at := time.UnixMilli(ms)
	return slices.ContainsFunc(m.versions[name], func(v version) bool {
		if !v.moved && !v.deleted || at.After(v.stored) {
			return false
		}
		var last reach
		for _, r := range m.reached[name] {
			if !r.stored.After(v.stored) {
				last = r
			}
		}
		if v.deleted {
			return at.After(last.told)
		}
		return at.After(last.past) && !at.Equal(last.next)
	}) || !m.wasKnown(name, at)
}

// wasEdited reports whether a schedule was edited, paused or deleted between two ticks.
func (m *model) wasEdited(name string, from, to time.Time) bool {
	return slices.ContainsFunc(m.versions[name], func(v version) bool { return from.Before(v.stored) && v.stored.Before(to) })
}

// wasKnown reports whether an owner knew of the definition by which a tick was due,
// before there was another.
func (m *model) wasKnown(name string, at time.Time) (known bool) {
	for _, v := range m.versions[name] {
		if v.since.Before(at) {
			known = m.known[v.revision]
		}
	}
	return known
}
