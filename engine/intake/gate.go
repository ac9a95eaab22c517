package intake

import (
	"context"
	"errors"
	"sync"

	"github.com/millrace/millrace/internal/wait"
)

// A Gate reports whether items of a queue may start, and returns a channel that is
// closed when that may have changed.
type Gate func(queue string) (open bool, changed <-chan struct{})

// errClosed is why nothing is taken from a queue.
var errClosed = errors.New("intake: the gate is closed")

// Open reports whether items of a queue may start now.
func (in *Intake) Open(queue string) bool { return in.shut(queue) == nil }

// shut returns nil if all gates of a queue are open, and otherwise when to look
// again.
func (in *Intake) shut(queue string) <-chan struct{} {
	for _, gate := range in.opts.Gates {
		if open, changed := gate(queue); !open {
			return changed
		}
	}
	return nil
}

// await waits until items of a queue may start, unless ctx ends first.
func (in *Intake) await(ctx context.Context, queue string) bool {
	for ctx.Err() == nil {
		changed := in.shut(queue)
		switch {
		case !in.opts.Ready():
			wait.For(ctx, pullPause/5)
		case changed == nil:
			return true
		default:
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
	return false
}

// whileOpen returns a context that ends with ctx, or when a gate of a queue is
// closed, which it has looked at. The caller must call over.
func (in *Intake) whileOpen(ctx context.Context, queue string) (_ context.Context, over func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	for _, gate := range in.opts.Gates {
		open, changed := gate(queue)
		if !open {
			cancel(errClosed)
		}
		watching.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-changed:
				case <-ctx.Done():
					return
				}
				if open, changed = gate(queue); !open {
					cancel(errClosed)
				}
			}
		})
	}
	return ctx, func() { cancel(nil); watching.Wait() }
}
