package engine

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/streams"
)

const (
	// pullWait is how long a pull waits at an empty queue. It also bounds for
	// how long a pull goes unnoticed that a server has forgotten.
	pullWait = 5 * time.Second
	// pullPause is the pause after a pull that failed.
	pullPause = 100 * time.Millisecond
	// spare is how long an item waits here for a slot. It came for one that
	// another queue was quicker to use, and other workers may have free ones.
	spare = 250 * time.Millisecond
)

// take takes items of one queue until ctx ends: one at a time while the queue
// is empty, and while it is not as many as there are free slots. While there is
// none it takes nothing: an item that waits here is one that no idle worker can
// have.
func (w *Worker) take(ctx context.Context, queue string, h *hand) error {
	puller, err := w.eng.work.Puller(queue, "")
	if err != nil {
		return err
	}
	served := false
	for ctx.Err() == nil {
		if !h.node.Ready() {
			pause(ctx, pullPause/5)
			continue
		}
		if !served {
			err = w.eng.work.Open(ctx, queue, "", streams.Shape{AckWait: w.eng.settings.Lease})
			served = err == nil
		}
		if served {
			err = w.takeOnce(ctx, puller, h)
		}
		if errors.Is(err, streams.ErrNoConsumer) {
			served = false
		}
		if err != nil && ctx.Err() == nil {
			w.log.DebugContext(ctx, "no items could be taken", "queue", queue, "err", err)
			pause(ctx, pullPause)
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := puller.Close(closing); err != nil {
		w.log.DebugContext(ctx, "items may come back late", "queue", queue, "err", err)
	}
	return nil
}

// takeOnce waits for one item and then takes what else there is.
func (w *Worker) takeOnce(ctx context.Context, puller *streams.Puller, h *hand) (err error) {
	var waiting uint64
	receive := func(d *streams.Delivery, err error) {
		waiting = d.Waiting
		h.receive(ctx, d, err)
	}
	if len(w.slots) == cap(w.slots) {
		waiting = 1 // maybe: who finds out waits for a slot first
	} else {
		_, err = puller.Pull(ctx, 1, pullWait, func(d *streams.Delivery, err error) {
			w.eng.running.hold(d)
			if w.slotSoon(ctx) {
				receive(d, err)
			} else {
				waiting = d.Waiting + 1
				w.handBack(d)
			}
		})
	}
	for err == nil && waiting > 0 && ctx.Err() == nil && h.node.Ready() {
		reserved := w.reserve(ctx, int(min(waiting, streams.MaxPull)))
		if reserved == 0 {
			break
		}
		var taken int
		taken, err = puller.Pull(ctx, reserved, 0, func(d *streams.Delivery, err error) {
			w.eng.running.hold(d)
			receive(d, err)
		})
		for range reserved - taken {
			<-w.slots
		}
		if taken == 0 {
			break
		}
	}
	return err
}

// slotSoon takes a slot, and reports whether there was one soon enough.
func (w *Worker) slotSoon(ctx context.Context) bool {
	select {
	case w.slots <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, spare)
	defer cancel()
	select {
	case w.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// reserve takes up to n slots: at least one, for which it waits unless ctx ends,
// and no more than this queue's share of those that are free.
func (w *Worker) reserve(ctx context.Context, n int) int {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	share := (cap(w.slots) - len(w.slots)) / len(w.opts.Queues)
	for got := 1; got < n && got <= share; got++ {
		select {
		case w.slots <- struct{}{}:
		default:
			return got
		}
	}
	return min(n, share+1)
}

// handBack gives an item that has not started to others.
func (w *Worker) handBack(d *streams.Delivery) {
	w.eng.running.release(d)
	if err := d.Nak(0); err != nil {
		w.log.Debug("item comes back late", "queue", d.Queue, "err", err)
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
