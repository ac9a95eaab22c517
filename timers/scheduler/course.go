package scheduler

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/millrace/millrace/timers/tick"
)

const (
	// near is how soon a schedule has to be due so that it stays in memory, and
	// nearer the same while there are many.
	near, nearer = 90 * time.Second, 2 * time.Second
	// leadLeast and leadMost are how long before it is due a schedule is read that
	// rests: each at its own time, since at midnight many are due.
	leadLeast, leadMost = 10 * time.Second, time.Minute
	// maxAwake is how many schedules are read ahead. Further ones are read when they
	// are due.
	maxAwake = 20_000
	// mostSlack bounds for how long a tick with a jitter lets others go first.
	mostSlack = 2 * time.Second
	// shortest and longest are how long after an error a schedule is tended again.
	shortest, longest = 250 * time.Millisecond, 10 * time.Second
)

// course is one schedule, in some hundred bytes while it rests: while nothing has to
// be known of it but when it is due.
type course struct {
	name string

	// Of the scheduler, under its lock.
	revision uint64 // of the definition, as far as was heard; of its marker, if it was deleted
	due      int64  // when to tend it, in ms since 1970; 0: when something is heard
	slack    int64  // how much later it may be tended than it is due, in ms
	last     int64  // while it is to be tended: when that has to be, in ms since 1970
	place    int    // in the heap, from 1; 0: it is not there
	busy     bool   // it is tended, or about to be
	again    bool   // there was news meanwhile
	watches  bool   // it waits for ends of jobs
	heard    *news  // nil: nothing

	// Of whoever tends it.
	mind   *mind // nil while it rests
	wants  wants
	unsure map[string]struct{} // jobs of which is to be read whether they want a turn
	tries  uint8               // that failed
}

// doubt has it read anew who wants a turn: another owner may have served those who did.
func (c *course) doubt() {
	for _, w := range c.wants {
		add(&c.unsure, w.ID)
	}
	c.wants = nil
}

// mind is all that is known of a schedule that does not rest.
type mind struct {
	def      *tick.Definition
	cursor   tick.Cursor // as it is stored
	revision uint64      // of the cursor; 0: it is not there
	todo     []tick.Act  // of the cursor, that are not known to be carried out
	ended    []tick.End  // what the cursor does not know yet

	wait   time.Duration // between two polls
	pollAt time.Time     // when to read the jobs whose ends matter
}

// take is a cursor as it was read.
func (m *mind) take(c tick.Cursor, revision uint64) {
	m.cursor, m.revision, m.todo, m.ended = c, revision, c.Doing, nil
	m.wait, m.pollAt = 0, time.Time{}
}

// soon has the jobs read soon whose ends matter, now that something has happened: not
// later than they would have been.
func (m *mind) soon(now time.Time) {
	m.wait = firstPoll
	if at := now.Add(m.interval()); m.pollAt.IsZero() || at.Before(m.pollAt) {
		m.pollAt = at
	}
}

// watch returns the jobs whose ends matter.
func (m *mind) watch() []string { return m.def.Watch(m.cursor) }

// interval returns how long after the last poll the next one is. Reading many jobs
// does not become more work than they are.
func (m *mind) interval() time.Duration {
	return max(m.wait, time.Duration(len(m.watch()))*pollEach)
}

// rests reports whether nothing has to be known of a schedule with that cursor until
// its next tick.
func (m *mind) rests(c tick.Cursor) bool {
	rolls := c.Burst != nil && c.Burst.Roll != nil
	return len(c.Doing) == 0 && !rolls && c.Late == nil && c.Unmade == nil && len(m.def.Watch(c)) == 0
}

// mayRest reports whether the schedule has so much time that all but that can be
// forgotten. The caller holds the lock.
func (s *Scheduler) mayRest(c *course, due time.Time) bool {
	if len(c.wants) > 0 || !c.mind.rests(c.mind.cursor) {
		return false
	}
	soon := near
	if s.mu.awake >= maxAwake {
		soon = nearer
	}
	return due.IsZero() || due.Sub(s.opts.Clock.Now()) > soon
}

var seed = maphash.MakeSeed()

// ahead returns when to read a schedule that rests until it is due, or 0 for never. The
// caller holds the lock.
func (s *Scheduler) ahead(c *course, due int64) int64 {
	if due == 0 || s.mu.awake >= maxAwake {
		return due
	}
	spread := maphash.String(seed, c.name) % uint64(leadMost-leadLeast)
	return due - (leadLeast + time.Duration(spread)).Milliseconds()
}

// milliseconds returns the first whole one that is not before t, or 0 for zero.
func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// tend does what there is to do for a schedule. Nobody else does meanwhile.
func (s *Scheduler) tend(ctx context.Context, c *course) {
	s.mu.Lock()
	n := c.heard
	c.heard, c.again = nil, false
	s.mu.Unlock()
	if n == nil {
		n = &news{}
	}
	was := c.mind != nil
	due, err := s.step(ctx, c, n)
	if err != nil {
		s.warn(ctx, c.name, err)
		due = s.opts.Clock.Now().Add(min(shortest<<min(c.tries, 10), longest))
		c.mind, c.tries = nil, min(c.tries, 99)+1 // it is read anew
		c.doubt()
	} else {
		c.tries = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.busy = false
	at := milliseconds(due)
	if c.mind != nil && s.mayRest(c, due) {
		c.mind = nil
		at = s.ahead(c, at)
	}
	s.count(was, c.mind != nil)
	c.watches = len(c.wants) > 0 || c.mind != nil && len(c.mind.watch()) > 0
	c.slack = 0
	if m := c.mind; m != nil && m.def != nil && at == milliseconds(m.cursor.Next) {
		c.slack = min(m.def.JitterOf(m.cursor.Next), mostSlack).Milliseconds()
	}
	s.mu.waiting.set(c, at)
	s.nudge()
	switch {
	case c.again || c.heard != nil:
		s.rouse(c)
	case err == nil && n.gone:
		delete(s.mu.courses, c.name)
	}
}

// count notes how many schedules are awake. The caller holds the lock.
func (s *Scheduler) count(was, is bool) {
	switch {
	case is && !was:
		s.mu.awake++
	case was && !is:
		s.mu.awake--
	}
}
