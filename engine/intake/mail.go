package intake

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/streams"
)

const (
	// page is how many items of a mailbox wait here for a slot, at most. No other
	// node could have them.
	page = 128
	// settleTime is how long after a look at a new connection comes the next: what
	// was stored before all servers knew who listens was not rung, and a replica
	// may not have had it yet.
	settleTime = 2 * time.Second
)

// mail takes items of one queue out of the mailbox of this node. It hears them as
// they are stored. What it did not hear, or had no room for, it finds by looking: at
// the start, at each reconnect, every 30 s, when an item was left for a while and
// that is over, and when somebody asks for it.
type mail struct {
	*Intake
	queue  string
	taking context.Context // of Run
	box    *streams.Mailbox
	marks  *marks
	asked  chan struct{} // has one element if it is to be looked soon
}

func (in *Intake) newMail(queue string) *mail {
	m := &mail{Intake: in, queue: queue, marks: newMarks(), asked: make(chan struct{}, 1)}
	m.box = in.work.Mailbox(in.opts.Mailbox, queue, m.marks)
	return m
}

// look has the mailbox looked into soon.
func (m *mail) look() {
	select {
	case m.asked <- struct{}{}:
	default:
	}
}

// run takes items until ctx ends.
func (m *mail) run(ctx context.Context) {
	m.taking = ctx
	for m.await(ctx, m.queue) {
		if err := m.shift(ctx); err != nil && ctx.Err() == nil {
			m.failed(ctx, err)
		}
	}
}

// failed says that the mailbox could not be read, and pauses.
func (m *mail) failed(ctx context.Context, err error) {
	m.opts.Logger.DebugContext(ctx, "mailbox could not be read", "node", m.opts.Mailbox, "queue", m.queue, "err", err)
	wait.For(ctx, pullPause)
}

// shift takes items while the gate is open. When it ends, nothing is being taken
// any more.
func (m *mail) shift(ctx context.Context) error {
	m.busy.add(1)
	defer m.busy.add(-1)
	ctx, over := m.whileOpen(ctx, m.queue)
	defer over()
	if ctx.Err() != nil {
		return nil
	}
	shape, err := m.opts.Shape(ctx, m.queue)
	if err != nil {
		return err
	}
	m.marks.serve(shape.AckWait)
	s := &sitting{mail: m, heard: make(chan heard, page), due: time.NewTimer(0), next: time.NewTimer(0)}
	defer s.due.Stop()
	defer s.next.Stop()
	deafen, err := m.box.Hear(s.ring)
	if err != nil {
		return err
	}
	defer deafen()
	var stop func()
	s.back, stop = m.work.Reconnected()
	defer stop()
	s.run(ctx)
	return nil
}

// sitting is what is known of a mailbox while the gate is open. Only run and what it
// calls use it, but for ring.
type sitting struct {
	*mail
	line   []heard // items that wait for a slot
	behind bool    // there may be items that are not in line, from the sequence from on
	from   uint64

	heard chan heard
	back  <-chan nats.Status // the connection is there again
	due   *time.Timer        // marks are over
	next  *time.Timer        // of the looks that are for nothing in particular
	soon  bool               // the next of them is not to wait for long
}

// heard is an item, or the error that makes it none of ours.
type heard struct {
	*streams.Delivery
	err error
}

// ring hears an item. One for which there is no room is found by looking.
func (s *sitting) ring(d *streams.Delivery, err error) {
	select {
	case s.heard <- heard{d, err}:
	default:
		s.mail.look()
	}
}

func (s *sitting) run(ctx context.Context) {
	s.soon = true
	for ctx.Err() == nil && s.opts.Ready() {
		s.note(ctx)
		switch {
		case len(s.line) > 0:
			s.give(ctx)
		case s.behind:
			s.read(ctx)
		}
	}
	for _, h := range s.line {
		s.marks.drop(h.Sequence)
	}
}

// closed is a channel that is.
var closed = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// note takes note of one thing that has happened. It waits for one unless there is
// something to do already.
func (s *sitting) note(ctx context.Context) {
	var busy <-chan struct{}
	if len(s.line) > 0 || s.behind {
		busy = closed
	}
	select {
	case <-ctx.Done():
	case <-busy:
	case h := <-s.heard:
		s.take(h)
	case <-s.asked:
		s.restart()
	case _, open := <-s.back:
		if !open {
			s.back = nil // the connection was closed
		}
		s.soon = true
		s.next.Reset(0)
	case <-s.next.C:
		s.restart()
		s.next.Reset(s.pause())
	case <-s.marks.sooner:
		s.rewind()
	case <-s.due.C:
		if s.marks.sweep() {
			s.restart()
		}
		s.rewind()
	}
}

// pause returns when to look again if there is no other reason. Processes that were
// cut off together do not go on together.
func (s *sitting) pause() time.Duration {
	if s.soon {
		s.soon = false
		return settleTime
	}
	return lookEvery - rand.N(lookEvery/8)
}

// rewind sets the timer of the marks.
func (s *sitting) rewind() {
	if d, any := s.marks.wait(); any {
		s.due.Reset(max(d, 0))
	}
}

// restart has the whole mailbox read.
func (s *sitting) restart() { s.behind, s.from = true, 0 }

// take puts an item into the line, unless it is there, or in hand.
func (s *sitting) take(h heard) {
	if len(s.line) >= page {
		s.restart()
	} else if s.marks.take(h.Sequence) {
		s.line = append(s.line, h)
	}
}

// read reads on in the mailbox.
func (s *sitting) read(ctx context.Context) {
	var err error
	s.from, s.behind, err = s.box.Look(ctx, s.from, page, func(d *streams.Delivery, err error) {
		if d.Sequence > 0 {
			s.take(heard{d, err})
		}
	})
	if err != nil && ctx.Err() == nil {
		s.failed(ctx, err)
	}
}

// give gives away as many of those in line as there are slots, once there is one.
func (s *sitting) give(ctx context.Context) {
	reserved, settle := s.slots.reserve(ctx, normal, len(s.line))
	used := 0
	for used < reserved && ctx.Err() == nil && s.opts.Ready() {
		h := s.line[used]
		used++
		s.marks.give(h.Sequence)
		s.busy.add(1)
		s.opts.Take(s.taking, &Taken{Delivery: h.Delivery, in: s.Intake}, h.err)
	}
	settle(used)
	clear(s.line[:used])
	if s.line = s.line[used:]; len(s.line) == 0 {
		s.line = nil
	}
}
