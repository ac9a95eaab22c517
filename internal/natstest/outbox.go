package natstest

import "sync"

// outbox is a queue of frames without a bound: what one end of a connection has
// sent and the other has not yet received.
type outbox struct {
	mu      sync.Mutex
	changed *sync.Cond
	frames  []frame
	closed  bool
	frozen  bool // nothing is taken, not even that it is closed
}

func newOutbox() *outbox {
	o := &outbox{}
	o.changed = sync.NewCond(&o.mu)
	return o
}

// put adds a frame, unless the outbox is closed.
func (o *outbox) put(f frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.frames = append(o.frames, f)
		o.changed.Signal()
	}
}

// take waits for a frame. It returns false when the outbox is closed and empty.
func (o *outbox) take() (frame, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.frozen || len(o.frames) == 0 && !o.closed {
		o.changed.Wait()
	}
	if len(o.frames) == 0 {
		return frame{}, false
	}
	f := o.frames[0]
	o.frames = o.frames[1:]
	return f, true
}

// drain takes everything until the outbox is closed.
func (o *outbox) drain() {
	for ok := true; ok; {
		_, ok = o.take()
	}
}

// close lets take return what is there, and then nothing.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Signal()
}

// discard closes the outbox and forgets what is there.
func (o *outbox) discard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.frames = true, nil
	o.changed.Signal()
}

// freeze lets nobody take anything until it is undone.
func (o *outbox) freeze(frozen bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frozen = frozen
	o.changed.Signal()
}
