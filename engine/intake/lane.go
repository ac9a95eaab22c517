package intake

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/streams"
)

const (
	// pullWait is how long a pull waits at an empty queue. It also bounds for
	// how long a pull goes unnoticed that a server has forgotten.
	pullWait = 5 * time.Second
	// pullPause is the pause after a pull that failed.
	pullPause = 100 * time.Millisecond
	// spare is how long an item waits here for a slot. It came for one that
	// another queue was quicker to use, and other processes may have free ones.
	spare = 250 * time.Millisecond
	// idlePause and longPause are the shortest and the longest pause before
	// somebody who found nothing to put into a slot asks for the next one, while
	// all are taken: meanwhile it goes to those who have something.
	idlePause, longPause = 5 * time.Millisecond, time.Second
	// idleShare is how much of the time of a slot goes into looking in vain, at
	// most: one part of so many.
	idleShare = 10
	// closeTime bounds how long a puller says good-bye.
	closeTime = time.Second
)

// lane takes items of one class of a queue. It has its own consumer, unless the
// queue has a limit: then one lane has all classes.
type lane struct {
	*line
	class string
}

// run takes items until ctx ends, or the consumer is not there any more.
func (l *lane) run(ctx context.Context) error {
	for l.await(ctx, l.queue) {
		if err := l.shift(ctx); errors.Is(err, streams.ErrNoConsumer) {
			return err
		}
	}
	return nil
}

// shift takes items while the gate is open. When it ends, nothing is being taken
// any more.
func (l *lane) shift(ctx context.Context) error {
	l.busy.add(1)
	defer l.busy.add(-1)
	ctx, over := l.whileOpen(ctx, l.queue) // it looks at the gate only now, see [Intake.Idle]
	defer over()
	if ctx.Err() != nil {
		return nil
	}
	puller, err := l.work.Puller(l.queue, l.class)
	if err != nil {
		return l.failed(ctx, err)
	}
	defer l.close(ctx, puller)
	for ctx.Err() == nil && l.opts.Ready() {
		if err := l.takeOnce(ctx, puller); err != nil {
			return l.failed(ctx, err)
		}
	}
	return nil
}

// failed says that nothing could be taken, pauses, and returns err.
func (l *lane) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	l.opts.Logger.DebugContext(ctx, "no items could be taken", "queue", l.queue, "class", l.class, "err", err)
	wait.For(ctx, pullPause)
	return err
}

func (l *lane) close(ctx context.Context, puller *streams.Puller) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if err := puller.Close(ctx); err != nil {
		l.opts.Logger.DebugContext(ctx, "items may come back late", "queue", l.queue, "err", err)
	}
}

// takeOnce waits for one item and then takes what else there is, as much as there
// are free slots. While there is none it takes nothing.
func (l *lane) takeOnce(ctx context.Context, puller *streams.Puller) (err error) {
	var waiting uint64
	if l.slots.left() == 0 {
		waiting = 1 // maybe: who finds out waits for a slot first
	} else {
		_, err = puller.Pull(ctx, 1, pullWait, func(d *streams.Delivery, err error) {
			if waiting = d.Waiting; !l.start(ctx, d, err) {
				waiting++
			}
		})
	}
	for err == nil && waiting > 0 && ctx.Err() == nil && l.opts.Ready() {
		reserved, settle := l.slots.reserve(ctx, rankOf(l.class), int(min(waiting, streams.MaxPull)))
		if reserved == 0 {
			break
		}
		var taken int
		began := time.Now()
		taken, err = puller.Pull(ctx, reserved, 0, func(d *streams.Delivery, err error) {
			waiting = d.Waiting
			l.give(d, err)
		})
		settle(taken)
		if taken == 0 {
			l.rest(ctx, time.Since(began))
			break
		}
	}
	if errors.Is(err, errClosed) {
		err = nil
	}
	return err
}

// start gives an item away if there is a slot for it soon enough, and otherwise
// hands it back.
func (l *lane) start(ctx context.Context, d *streams.Delivery, err error) bool {
	if l.slots.takeWithin(ctx, rankOf(d.Class), spare) {
		l.give(d, err)
		return true
	}
	if err := d.Nak(0); err != nil {
		l.opts.Logger.Debug("item comes back late", "queue", l.queue, "err", err)
	}
	return false
}

// give gives an item away that has a slot.
func (l *lane) give(d *streams.Delivery, err error) {
	l.busy.add(1)
	l.opts.Take(l.taking, &Taken{Delivery: d, in: l.Intake}, err)
}

// rest lets others have the slots after a look in vain that took some time, unless
// one is free.
func (l *lane) rest(ctx context.Context, took time.Duration) {
	long := min(max(took*time.Duration(idleShare*l.slots.queues), idlePause), longPause)
	for began := time.Now(); ctx.Err() == nil && l.slots.left() == 0 && time.Since(began) < long; {
		wait.For(ctx, idlePause)
	}
}
