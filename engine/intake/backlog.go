package intake

import (
	"sync"

	"github.com/millrace/millrace/streams"
)

// page is how many items of a mailbox wait here for a slot, at most. No other node
// could have them.
const page = 128

// mailed is an item of a mailbox, or the error that makes it none of ours.
type mailed struct {
	*streams.Delivery
	err error
}

// backlog is what was heard or found in a mailbox and waits for a slot. All of it is
// marked. One goroutine takes from it.
type backlog struct {
	marks *marks
	rung  chan struct{} // has one element if something was put in

	mu    sync.Mutex
	items []mailed
	over  bool // nothing is put in any more
}

func newBacklog(marks *marks) *backlog {
	return &backlog{marks: marks, rung: make(chan struct{}, 1)}
}

// put puts an item in, unless it is there already, or it is marked for another
// reason. It reports false if there was no room.
func (b *backlog) put(item mailed) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over || item.Sequence == 0: // which is none of this mailbox
	case len(b.items) >= page:
		return false
	case b.marks.take(item.Sequence):
		b.items = append(b.items, item)
		select {
		case b.rung <- struct{}{}:
		default:
		}
	}
	return true
}

func (b *backlog) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items)
}

// next takes the first item out, which is in hand from now on. There has to be one.
func (b *backlog) next() mailed {
	b.mu.Lock()
	defer b.mu.Unlock()
	item := b.items[0]
	b.items[0] = mailed{} // the array lives on
	b.items = b.items[1:]
	b.marks.give(item.Sequence)
	return item
}

// end leaves what was not taken where it lies.
func (b *backlog) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for _, item := range b.items {
		b.marks.drop(item.Sequence)
	}
}
