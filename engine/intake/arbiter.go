package intake

import (
	"slices"

	"github.com/millrace/millrace/streams"
)

// rank is a class of priority among those that wait for a slot.
type rank int

const (
	high rank = iota
	normal
	low
	ranks
)

// rankOf returns the rank of a class of items.
func rankOf(class string) rank {
	switch class {
	case streams.High:
		return high
	case streams.Low:
		return low
	}
	return normal
}

// strides are how far apart the turns of a class are. While all classes wait, 16
// of 21 slots go to high, 4 to normal and 1 to low.
var strides = [ranks]uint64{5, 20, 80}

// A ticket is somebody's wish for a slot.
type ticket struct {
	rank    rank
	granted chan struct{} // closed when the wish comes true
	turn    uint64        // of the class, when it came true
}

// arbiter grants slots: at once while some are free, and otherwise in turns. It is
// pure, and not safe for concurrent use.
//
// A class has its turns at distances of its stride, on a clock that shows the
// turn of the last grant. The earliest turn of those that wait is next, the higher
// class first if there are several, and within a class who came first. A class
// that did not wait begins a stride after the clock, so it saves no turns up, and
// the higher one that comes last is first as a rule. Hence, whatever
// else comes and goes: while a class waits, and before its next turn, each other
// one has at most its share of them and one more, that is stride/its stride + 1.
// So a job of the low class gets at least every 23rd slot.
//
// Who has a slot and then finds nothing to put into it has not had a turn: the
// class has it again, until one who waited when it began finds something, or all
// of them have found nothing. Otherwise a class would lose its share to queues in
// which it has nothing.
type arbiter struct {
	free  int // nobody waits while it is more than 0
	clock uint64
	lines [ranks]struct {
		turn    uint64
		waiting []*ticket
		looks   int // how many of those who waited when the turn began may still look in vain
	}
}

// take takes a slot if one is free, and reports whether it was.
func (a *arbiter) take() bool {
	if a.free == 0 {
		return false
	}
	a.free--
	return true
}

// queue notes the wish of somebody who found no slot.
func (a *arbiter) queue(t *ticket) {
	l := &a.lines[t.rank]
	if len(l.waiting) == 0 {
		l.turn, l.looks = max(l.turn, a.clock+strides[t.rank]), 0
	}
	l.waiting = append(l.waiting, t)
}

// release gives a slot back, and returns whose wish comes true by it, or nil.
func (a *arbiter) release() *ticket {
	next := ranks
	for r := range ranks {
		l := &a.lines[r]
		if len(l.waiting) > 0 && (next == ranks || l.turn < a.lines[next].turn) {
			next = r
		}
	}
	if next == ranks {
		a.free++
		return nil
	}
	l := &a.lines[next]
	t := l.waiting[0]
	l.waiting = slices.Delete(l.waiting, 0, 1)
	if l.looks == 0 {
		l.looks = len(l.waiting) + 1
	}
	a.clock, t.turn = l.turn, l.turn
	l.turn += strides[next]
	return t
}

// conclude notes whether somebody whose wish came true had a use for the slot.
func (a *arbiter) conclude(t *ticket, used bool) {
	l := &a.lines[t.rank]
	switch {
	case used:
		l.looks = 0
	case l.turn != t.turn+strides[t.rank]: // the class has had another turn since
	default:
		if l.looks = max(l.looks-1, 0); l.looks > 0 {
			l.turn = t.turn
		}
	}
}

// withdraw takes a wish back, and reports whether it had not come true.
func (a *arbiter) withdraw(t *ticket) bool {
	l := &a.lines[t.rank]
	i := slices.Index(l.waiting, t)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}
