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
)

// take takes items of one queue until ctx ends: one at a time while the queue
// is empty, and while it is not as many as there are free slots. What it takes
// beyond the slots is one item, which waits here for the next free one.
func (w *Worker) take(ctx context.Context, queue string, h *hand) error {
	puller, err := w.eng.work.Puller(queue)
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
			err = w.eng.work.Serve(ctx, queue, w.eng.settings.Lease)
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
func (w *Worker) takeOnce(ctx context.Context, puller *streams.Puller, h *hand) error {
	var waiting uint64
	receive := func(d *streams.Delivery, err error) {
		waiting = d.Waiting
		h.receive(ctx, d, err)
	}
	_, err := puller.Pull(ctx, 1, pullWait, func(d *streams.Delivery, err error) {
		w.eng.running.hold(d)
		select {
		case w.slots <- struct{}{}:
			receive(d, err)
		case <-ctx.Done():
			w.handBack(d)
		}
	})
	for err == nil && waiting > 0 && ctx.Err() == nil && h.node.Ready() {
		reserved := w.reserve(ctx, int(min(waiting, streams.MaxPull)))
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

// reserve takes up to n slots: at least one, which it waits for, and no more
// than this queue's share of those that are free.
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
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
