package reconcile

import (
	"context"
	"time"
)

// sweepEvery is how often objects are looked for that no record names. They do no
// harm but to the disk.
const sweepEvery = time.Hour

// sweep deletes, every hour, the objects that no record names, until ctx ends. What
// it did not come to is there the next time, or for the next owner.
func (r *Reconciler) sweep(ctx context.Context) {
	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	for {
		swept, err := r.opts.Store.Sweep(ctx)
		if swept > 0 {
			r.opts.Logger.InfoContext(ctx, "objects were deleted that no job names", "objects", swept)
		}
		if err != nil && ctx.Err() == nil {
			r.opts.Logger.WarnContext(ctx, "not all objects could be looked at, they are again in an hour", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}
