package intake

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/streams"
)

// settleTime is how long after a look at a new connection comes the next: what was
// stored before all servers knew who listens was not rung, and a replica may not have
// had it yet.
const settleTime = 2 * time.Second

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
	s := &sitting{mail: m, line: newBacklog(m.marks), due: time.NewTimer(0), next: time.NewTimer(0), soon: true}
	defer s.line.end()
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

// sitting is what is known of a mailbox while the gate is open.
type sitting struct {
	*mail
	line   *backlog // what waits for a slot
	behind bool     // there may be items that are not in line, from the sequence from on
	from   uint64

	back <-chan nats.Status // the connection is there again
	due  *time.Timer        // marks are over
	next *time.Timer        // of the looks that are for nothing in particular
	soon bool               // the next of them is not to wait for long
}

// ring hears an item. One for which there is no room is found by looking.
func (s *sitting) ring(d *streams.Delivery, err error) {
	if !s.line.put(mailed{d, err}) {
		s.mail.look()
	}
}

func (s *sitting) run(ctx context.Context) {
	for ctx.Err() == nil && s.opts.Ready() {
		s.note(ctx)
		switch waiting := s.line.len(); {
		case waiting > 0:
			s.give(ctx, waiting)
		case s.behind:
			s.read(ctx)
		}
	}
}

// closed is a channel that is.
var closed = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// note takes note of one thing that has happened. It waits for one unless there is
// something to do already.
func (s *sitting) note(ctx context.Context) {
	var busy <-chan struct{}
	if s.line.len() > 0 || s.behind {
		busy = closed
	}
	select {
	case <-ctx.Done():
	case <-busy:
	case <-s.line.rung:
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

// read reads on in the mailbox, which brings no more than there is room for, unless
// items are heard meanwhile.
func (s *sitting) read(ctx context.Context) {
	var err error
	room := true
	s.from, s.behind, err = s.box.Look(ctx, s.from, page, func(d *streams.Delivery, err error) {
		room = s.line.put(mailed{d, err}) && room
	})
	if !room {
		s.restart()
	}
	if err != nil && ctx.Err() == nil {
		s.failed(ctx, err)
	}
}

// give gives away as many of those in line as there are slots, once there is one.
func (s *sitting) give(ctx context.Context, waiting int) {
	reserved, settle := s.slots.reserve(ctx, normal, waiting)
	used := 0
	for used < reserved && ctx.Err() == nil && s.opts.Ready() {
		item := s.line.next()
		used++
		s.busy.add(1)
		s.opts.Take(s.taking, &Taken{Delivery: item.Delivery, in: s.Intake}, item.err)
	}
	settle(used)
}
