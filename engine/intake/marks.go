package intake

import (
	"sync"
	"time"

	"github.com/millrace/millrace/streams"
)

const (
	// doneFor is for how long it is remembered that an item is gone: a look that
	// was under way, or a replica that is behind, may still show it.
	doneFor = 5 * time.Second
	// sweepEvery is how soon marks that are over are looked for again.
	sweepEvery = 100 * time.Millisecond
)

// marks are the items of a mailbox that are not to be taken now, by their
// sequences: those that this process has, those that it left where they are for a
// while, and those that are gone. The zero value has none.
//
// An item that was taken and of which nothing was heard for a lease may be taken
// again, as one of a queue.
type marks struct {
	mu      sync.Mutex
	lease   time.Duration
	of      map[uint64]mark
	soonest time.Time     // no mark is over before; zero if there is none
	swept   time.Time     // when it was last looked for marks that are over
	sooner  chan struct{} // has one element if soonest is earlier than it was
}

// mark says why an item is not to be taken, and until when.
type mark struct {
	why   reason
	until time.Time // zero for one in line
}

// reason is why an item is not to be taken.
type reason int

const (
	inLine reason = iota // it waits for a slot
	inHand               // it was given away
	left
	gone
)

var _ streams.Hand = (*marks)(nil)

func newMarks() *marks { return &marks{of: map[uint64]mark{}, sooner: make(chan struct{}, 1)} }

// serve sets after how long an item is taken again of which nothing is heard.
func (m *marks) serve(lease time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lease = lease
}

// take marks an item that is to wait for a slot, and reports whether it may.
func (m *marks) take(sequence uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, marked := m.of[sequence]; marked && (was.why == inLine || time.Now().Before(was.until)) {
		return false
	}
	m.of[sequence] = mark{why: inLine}
	return true
}

// drop forgets an item that was not given away.
func (m *marks) drop(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, sequence)
}

// give notes that an item is given away.
func (m *marks) give(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(sequence, mark{inHand, time.Now().Add(m.lease)})
}

// Kept implements [streams.Hand].
func (m *marks) Kept(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of[sequence].why == inHand {
		m.set(sequence, mark{inHand, time.Now().Add(m.lease)})
	}
}

// Left implements [streams.Hand].
func (m *marks) Left(sequence uint64, delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(sequence, mark{left, time.Now().Add(max(delay, 0))})
}

// Done implements [streams.Hand].
func (m *marks) Done(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(sequence, mark{gone, time.Now().Add(doneFor)})
}

func (m *marks) set(sequence uint64, to mark) {
	m.of[sequence] = to
	if !m.soonest.IsZero() && !to.until.Before(m.soonest) {
		return
	}
	m.soonest = to.until
	select {
	case m.sooner <- struct{}{}:
	default:
	}
}

// wait returns how long it is until marks have to be swept. It reports false if
// there are none.
func (m *marks) wait() (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	soonest := m.soonest
	if again := m.swept.Add(sweepEvery); soonest.Before(again) && !soonest.IsZero() {
		soonest = again
	}
	return time.Until(soonest), !m.soonest.IsZero()
}

// sweep forgets marks that are over, and reports whether there may be an item
// under one of them.
func (m *marks) sweep() (found bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.swept, m.soonest = time.Now(), time.Time{}
	for sequence, is := range m.of {
		switch {
		case is.why == inLine:
		case !m.swept.Before(is.until):
			delete(m.of, sequence)
			found = found || is.why != gone
		case m.soonest.IsZero() || is.until.Before(m.soonest):
			m.soonest = is.until
		}
	}
	return found
}
