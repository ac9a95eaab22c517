// Package wait waits for a while, unless it is not worth it any more.
//
// Start reading at [For]. [Patience] tries something again meanwhile, and [Alarm] is
// punctual.
package wait

import (
	"context"
	"time"
)

// For waits for d, and reports whether ctx goes on: it returns false as soon as ctx
// ends, also where there is nothing to wait for.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
