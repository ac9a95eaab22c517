package reconcile

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"
)

// grace is how long after its due time a job may lack both its timer and its
// item: one that was claimed then shows only when the reader gets there.
const grace = 10 * time.Second

// index is what the reader remembers of the jobs that have not ended: 60 to 90
// bytes for each. It is behind the truth by the reader's lag, so it only tells
// where to look. It is safe for concurrent use.
type index struct {
	seed maphash.Seed

	mu     sync.Mutex
	queues map[string]*queue
	timers tally // when the timers are due that have to be there
	owners census[owner]
	spots  census[spot]
}

// queue is the jobs of one queue, by the hash of their local ID. Should two have
// the same, one of them is not counted.
type queue struct {
	jobs    map[uint64]entry
	driven  [drives]driven // those that something drives, by what it is
	running int            // how many somebody runs
	waiting int            // how many wait for their children
	turns   int            // how many wait for a turn
}

// driven is the jobs of a queue that are driven by the same.
type driven struct {
	jobs int
	due  tally // when the delayed ones are due
}

// drive is what a job needs to go on once it is due.
type drive int

const (
	byItem drive = iota // an item in its queue
	byMail              // an item in the mailbox of its node
	byNone              // the owner: it has no place yet, or waits for its children or its turn
	drives
)

// entry is a job as it was read. The times are those of its timers, in seconds
// since 1970, rounded up; 0 is none.
type entry struct {
	sequence               uint64
	due, startBy, deadline uint32
	owner                  uint32 // the number of who runs it, or 0
	spot                   uint32 // the number of where it may run, or 0 for anywhere
}

// ref finds an entry again, and the record that it was made of.
type ref struct {
	queue    string
	hash     uint64
	sequence uint64
}

// newIndex returns an index without entries, at a time.
func newIndex(now time.Time) *index {
	return &index{seed: maphash.MakeSeed(), queues: make(map[string]*queue), timers: newTally(now)}
}

// entryOf returns what is remembered of a record.
func (x *index) entryOf(r record) entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := entry{sequence: r.sequence, due: seconds(r.Due), startBy: seconds(r.StartBy), deadline: seconds(r.Deadline)}
	if o, runs := r.owner(); runs {
		e.owner = x.owners.number(o, owner.clone)
	}
	if s, apart := r.spot(); apart {
		e.spot = x.spots.number(s, spot.clone)
	}
	return e
}

// put remembers a job that has not ended, in the place of what it was before.
func (x *index) put(name, local string, e entry, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := x.queues[name]
	if q == nil {
		q = &queue{jobs: make(map[uint64]entry)}
		for d := range q.driven {
			q.driven[d].due = newTally(now.Add(-grace))
		}
		x.queues[strings.Clone(name)] = q
	}
	hash := maphash.String(x.seed, local)
	if before, known := q.jobs[hash]; known {
		x.count(q, before, -1)
	}
	x.count(q, e, 1)
	q.jobs[hash] = e
}

// drop forgets a job.
func (x *index) drop(name, local string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.delete(name, maphash.String(x.seed, local))
}

// forget forgets an entry, unless the job has been read again meanwhile.
func (x *index) forget(r ref) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if q := x.queues[r.queue]; q != nil && q.jobs[r.hash].sequence == r.sequence {
		x.delete(r.queue, r.hash)
	}
}

// delete removes an entry. The caller holds the lock.
func (x *index) delete(name string, hash uint64) {
	q := x.queues[name]
	if q == nil {
		return
	}
	if before, known := q.jobs[hash]; known {
		x.count(q, before, -1)
	}
	delete(q.jobs, hash)
	if len(q.jobs) == 0 {
		delete(x.queues, name)
	}
}

// count adds an entry to the tallies, or takes it away. The caller holds the lock.
func (x *index) count(q *queue, e entry, n int32) {
	of := &q.driven[x.drive(e)]
	of.jobs += int(n)
	of.due.add(e.due, n)
	x.owners.count(e.owner, n)
	x.spots.count(e.spot, n)
	if e.owner != 0 {
		q.running += int(n)
	}
	switch s := x.spots.of(e.spot); {
	case s.waits:
		q.waiting += int(n)
	case s.turn:
		q.turns += int(n)
	}
	for _, at := range [...]uint32{e.due, e.startBy, e.deadline} {
		x.timers.add(at, n)
	}
}

// drive returns what drives a job. The caller holds the lock.
func (x *index) drive(e entry) drive {
	switch {
	case e.spot == 0:
		return byItem
	case x.spots.of(e.spot).node != "":
		return byMail
	}
	return byNone
}

// names returns the queues that have jobs.
func (x *index) names() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	names := make([]string, 0, len(x.queues))
	for name := range x.queues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// size returns how many jobs there are.
func (x *index) size() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, q := range x.queues {
		n += len(q.jobs)
	}
	return n
}

// items returns how many jobs of a queue need an item there: all that do not wait
// for their due time, and that any node may have.
func (x *index) items(name string, now time.Time) int { return x.ready(name, byItem, now) }

// mail returns how many jobs of a queue need an item in the mailbox of a node.
func (x *index) mail(name string, now time.Time) int { return x.ready(name, byMail, now) }

// ready returns how many jobs of a queue do not wait for their due time.
func (x *index) ready(name string, d drive, now time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := x.queues[name]
	if q == nil {
		return 0
	}
	of := &q.driven[d]
	return of.jobs - of.due.after(now.Add(-grace))
}

// dues returns how many timers there have to be.
func (x *index) dues(now time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.timers.after(now)
}

// pick returns up to n jobs of a queue that fit, at random, or all if n is below 0.
func (x *index) pick(name string, n int, fits func(entry) bool) []ref {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := x.queues[name]
	if q == nil {
		return nil
	}
	var picked []ref
	for hash, e := range q.jobs { // maps begin anywhere, and hashes have no order
		if n >= 0 && len(picked) == n {
			break
		}
		if fits(e) {
			picked = append(picked, ref{name, hash, e.sequence})
		}
	}
	return picked
}

// needsItem returns what tells which jobs need an item in their queue.
func needsItem(now time.Time) func(entry) bool {
	past := uint32(now.Add(-grace).Unix())
	return func(e entry) bool { return e.spot == 0 && e.due <= past }
}

// needsMail returns what tells which jobs need one in a mailbox, or a place where
// that could be.
func needsMail(now time.Time) func(entry) bool {
	past := uint32(now.Add(-grace).Unix())
	return func(e entry) bool { return e.spot != 0 && e.due <= past }
}

// needsTimer returns what tells which jobs need a timer.
func needsTimer(now time.Time) func(entry) bool {
	past := uint32(now.Unix())
	return func(e entry) bool { return max(e.due, e.startBy, e.deadline) > past }
}

// seconds returns milliseconds in seconds, rounded up.
func seconds(ms int64) uint32 { return uint32((ms + 999) / 1000) }

// tally counts times, and tells how many of them are to come.
type tally struct {
	now uint32
	at  map[uint32]int32 // how many there are of each time after now
	n   int              // the sum of them
}

func newTally(now time.Time) tally {
	return tally{now: uint32(now.Unix()), at: make(map[uint32]int32)}
}

// add adds a time n times. What is over is neither counted nor taken away.
func (t *tally) add(at uint32, n int32) {
	if at <= t.now {
		return
	}
	t.n += int(n)
	if t.at[at] += n; t.at[at] == 0 {
		delete(t.at, at)
	}
}

// after returns how many times come after now, which does not go back.
func (t *tally) after(now time.Time) int {
	if second := uint32(now.Unix()); second > t.now {
		t.now = second
		for at, n := range t.at {
			if at <= second {
				t.n -= int(n)
				delete(t.at, at)
			}
		}
	}
	return t.n
}
