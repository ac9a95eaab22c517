package wait

import (
	"context"
	"time"
)

// Patience is how something is tried again that fails for a reason that may pass.
type Patience struct {
	// For is for how long it is tried again, after the first failure. 0: not at all.
	For time.Duration

	// Passing says which failures may pass. All others are returned at once.
	Passing func(error) bool

	// Tell is called with a failure when it has lasted for a second, and every ten
	// seconds from then on. Default: nobody is told.
	Tell func(error)
}

const (
	// firstPause is how long Try waits after the first failure. Each further pause
	// is twice as long, up to maxPause.
	firstPause, maxPause = 50 * time.Millisecond, time.Second

	// tellAfter is how long a failure is nobody's business, and tellEvery how often
	// it is told of afterwards.
	tellAfter, tellEvery = time.Second, 10 * time.Second
)

// Try calls f until it succeeds, fails for a reason that does not pass, or has
// failed for as long as p allows, or until ctx ends. It returns what f returned
// last.
func (p Patience) Try(ctx context.Context, f func(context.Context) error) error {
	var failing, tell time.Time // since when; when to tell of it
	pause := firstPause
	for {
		err := f(ctx)
		if err == nil || ctx.Err() != nil || !p.Passing(err) {
			return err
		}
		now := time.Now()
		if failing.IsZero() {
			failing, tell = now, now.Add(tellAfter)
		}
		if now.Sub(failing) >= p.For {
			return err
		}
		if p.Tell != nil && !now.Before(tell) {
			p.Tell(err)
			tell = now.Add(tellEvery)
		}
		if !For(ctx, pause) {
			return err
		}
		pause = min(2*pause, maxPause)
	}
}
