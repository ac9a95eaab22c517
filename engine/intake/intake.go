// Package intake is what a process takes off its queues: exactly what it can
// start. An item that lies in a process without being run is one that no idle
// process can have.
//
//	Intake.Run
//	 ├─ mail, one a queue: what is in the mailbox of this node         mail.go, backlog.go, marks.go
//	 └─ line, one a queue: makes its consumer, learns of its classes   line.go, classes.go
//	     └─ lane, one a class: pulls items while the gate is open      lane.go
//	         └─ slots: who may start next                              slots.go
//	             └─ arbiter: the rule by which they are granted        arbiter.go
//
// Start reading at [Intake.Run], then at lane.takeOnce.
//
// It decides nothing about a job: whoever gets an item claims it, or answers it
// otherwise. Classes order what waits for the slots of one process. Between
// processes there is no order, and none between the classes of a queue with a
// limit, whose items come one after the other.
//
// # Queues
//
// While a queue is empty one pull of one item waits there, if a slot is free. Then a
// lane takes as many items as there are free slots, which it reserves before it asks.
// It hands back what it cannot start. While a gate of the queue is closed (it is
// paused, or the node is drained) it asks for nothing, and after that nothing starts
// that lay between delivery and claim.
//
// A queue has a consumer for each class: that of the normal one is called like the
// queue, <queue>=high and <queue>=low are made by the first worker that hears of such
// an item, on the subjects of the stream. A queue with a limit has one consumer for
// all classes, with that many unacknowledged items at most. An attempt holds its item
// from before its claim until its outcome is stored, and a consumer that is made anew
// delivers the oldest items first, so those that may run are always the same.
// [streams.Work.Serve] keeps the two shapes apart.
//
// # Mail
//
// An item for one node lies in that node's mailbox, see [streams.Mailbox]. What is in
// hand, was left for a while, or is gone since a moment ago is marked by its sequence,
// so what is both heard and found is taken once. Mail waits for slots in the line of
// the normal class. No limit of a queue holds for it, which is that of a consumer.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/streams"
)

// Options configures an [Intake].
type Options struct {
	// Queues are taken from. They may be none.
	Queues []string
	// Mailbox is the node whose mailbox is looked into, for items of these queues.
	// Empty: none is.
	Mailbox string
	// MailOnly leaves the queues themselves alone: only the mailbox is looked into.
	MailOnly bool
	// Slots is how many items are in hand at once, over all queues: at least 1.
	Slots int
	// Ready reports whether the process may start anything now. It is required.
	Ready func() bool
	// Gates are what may keep items of a queue from starting. Default: nothing
	// does.
	Gates []Gate
	// Shape reads from the leader how a queue is to be served. It is required.
	Shape func(ctx context.Context, queue string) (streams.Shape, error)
	// Take is given each item, or the error that makes it none of ours, from a
	// goroutine that it must not block. ctx ends when nothing more is taken.
	// Somebody must call [Taken.Free]. It is required.
	Take func(ctx context.Context, t *Taken, err error)
	// Logger hears of what is tried again. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	if o.Slots < 1 {
		return fmt.Errorf("intake: slots is %d: use 1 or more", o.Slots)
	}
	if o.Ready == nil || o.Shape == nil || o.Take == nil {
		return errors.New("intake: ready, shape and take are required")
	}
	return nil
}

// Intake takes items. Make one with [New].
type Intake struct {
	opts  Options
	work  *streams.Work
	slots *slots
	mails []*mail // one a queue; none without a mailbox
	busy  tally   // what is being taken, and what lies between delivery and claim
}

// New returns an intake that does nothing before [Intake.Run].
func New(work *streams.Work, opts Options) *Intake {
	o := opts.withDefaults()
	in := &Intake{opts: o, work: work, slots: newSlots(o.Slots, len(o.Queues))}
	if o.Mailbox != "" {
		for _, queue := range o.Queues {
			in.mails = append(in.mails, in.newMail(queue))
		}
	}
	return in
}

// Run takes items until ctx ends. Then it asks for no more, and what the server
// has sent meanwhile goes back, so that others have it at once. While NATS is
// away it waits for its return.
func (in *Intake) Run(ctx context.Context) error {
	if err := in.opts.validate(); err != nil {
		return err
	}
	var lines sync.WaitGroup
	for _, queue := range in.lined() {
		lines.Go(func() { (&line{Intake: in, queue: queue, taking: ctx}).run(ctx) })
	}
	for _, m := range in.mails {
		lines.Go(func() { m.run(ctx) })
	}
	lines.Wait()
	return nil
}

// lined returns the queues that are taken from themselves.
func (in *Intake) lined() []string {
	if in.opts.MailOnly {
		return nil
	}
	return in.opts.Queues
}

// Look has the mailbox looked into soon.
func (in *Intake) Look() {
	for _, m := range in.mails {
		m.look()
	}
}

// Idle waits until nothing is being taken and no item lies between its delivery
// and [Taken.Decided], or until ctx ends. While all gates are closed, or Run has
// ended, it stays like that: what was not decided before will never start here.
func (in *Intake) Idle(ctx context.Context) error { return in.busy.wait(ctx) }

// Free returns how many slots are free.
func (in *Intake) Free() int { return in.slots.left() }

// Taken is an item in the hands of this process, and the slot that it has.
type Taken struct {
	*streams.Delivery

	in             *Intake
	decided, freed atomic.Bool
}

// Open reports whether items of its queue may start now.
func (t *Taken) Open() bool { return t.in.Open(t.Queue) }

// Decided says what becomes of the item: its handler has started, or will not. It
// may be called more than once.
func (t *Taken) Decided() {
	if t.decided.CompareAndSwap(false, true) {
		t.in.busy.add(-1)
	}
}

// Free gives the slot back. It may be called more than once. An item of which
// nothing else was said is decided then.
func (t *Taken) Free() {
	t.Decided()
	if t.freed.CompareAndSwap(false, true) {
		t.in.slots.free(1)
	}
}

// tally counts, and tells when there is nothing.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n gets 0; nil if nobody waits
}

func (c *tally) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n += n; c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

func (c *tally) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("intake: wait until nothing is taken: %w", context.Cause(ctx))
	}
}
