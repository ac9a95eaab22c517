package publish

import (
	"time"

	"github.com/nats-io/nats.go"
)

// call is a message in flight. One of its two callbacks is set and is called
// once, by whoever takes the call out of the window.
type call struct {
	done  func(Ack, error)
	reply func(*nats.Msg, error)
	sent  time.Duration // since the publisher began
	life  uint64        // how often the connection had been re-established
}

func (c *call) open() bool { return c.done != nil || c.reply != nil }

func (c *call) fail(err error) {
	if c.done != nil {
		c.done(Ack{}, err)
	} else {
		c.reply(nil, err)
	}
}

// window holds the calls in flight, in the order in which they were made. Calls
// are numbered; call n is at ring[n % len(ring)] while head <= n < tail. The
// answers come nearly in that order, so the ring stays small, and its head is
// the call that has waited longest.
type window struct {
	ring       []call // its length is a power of two
	head, tail uint64
	open       int // calls that have not ended
}

// maxIdleRing is the length above which an empty ring is given back.
const maxIdleRing = 1 << 14

// add returns the number of c.
func (w *window) add(c call) uint64 {
	if w.tail-w.head == uint64(len(w.ring)) {
		w.grow()
	}
	n := w.tail
	*w.at(n) = c
	w.tail++
	w.open++
	return n
}

// take ends call n and returns it, unless it has ended.
func (w *window) take(n uint64) (call, bool) {
	if n < w.head || n >= w.tail || !w.at(n).open() {
		return call{}, false
	}
	c := *w.at(n)
	*w.at(n) = call{}
	w.open--
	for w.head < w.tail && !w.at(w.head).open() {
		w.head++
	}
	if w.open == 0 && len(w.ring) > maxIdleRing {
		w.ring = nil
	}
	return c, true
}

func (w *window) at(n uint64) *call { return &w.ring[n&uint64(len(w.ring)-1)] }

func (w *window) grow() {
	ring := make([]call, max(64, 2*len(w.ring)))
	for n := w.head; n < w.tail; n++ {
		ring[n&uint64(len(ring)-1)] = *w.at(n)
	}
	w.ring = ring
}
