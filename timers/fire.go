package timers

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/streams"
)

const (
	// maxAtOnce bounds how many timers fire at the same time.
	maxAtOnce = 128
	// maxSleep bounds the sleep before the next timer: the clock is measured
	// again now and then.
	maxSleep = time.Second
	// minDelay and maxDelay bound after how long a timer that failed fires again.
	minDelay = time.Second
	maxDelay = 30 * time.Second
	// awayDelay is the same if NATS did not answer, which says nothing about
	// the timer.
	awayDelay = time.Second
)

// fire fires what is due until ctx ends, and waits for what is in flight.
func (f *firing) fire(ctx context.Context) error {
	var flying errgroup.Group
	defer func() { _ = flying.Wait() }() // it returns no error
	flying.SetLimit(maxAtOnce)
	connected := f.nc.StatusChanged(nats.CONNECTED)
	defer f.nc.RemoveStatusListener(connected)
	alarm := wait.NewAlarm()
	defer alarm.Stop()
	for {
		sleep := maxSleep
		for f.mayFire(ctx) {
			var e entry
			if e, sleep = f.next(); sleep > 0 {
				break
			}
			flying.Go(func() error {
				f.landed(e.sequence, f.fireOne(ctx, e.sequence))
				return nil
			})
		}
		alarm.Set(sleep)
		select {
		case <-ctx.Done():
			return nil
		case <-connected:
		case <-f.wake:
		case <-alarm.C:
			alarm.Nap()
		}
	}
}

// mayFire reports whether this process is the owner now, by the clock and not by
// what it was told, and NATS is there.
func (f *firing) mayFire(ctx context.Context) bool {
	return ctx.Err() == nil && f.opts.Owner.Valid() && f.nc.IsConnected()
}

// next takes the next entry if it is due. Otherwise it returns how long to sleep.
// One whose timer fires already, since it was read twice, is dropped.
func (f *firing) next() (e entry, sleep time.Duration) {
	now := f.opts.Clock.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.mu.waiting) > 0 {
		if sleep = time.UnixMilli(f.mu.waiting[0].due).Sub(now); sleep > 0 {
			return entry{}, min(sleep, maxSleep)
		}
		if e = f.mu.waiting.pop(); !f.mu.flying[e.sequence] {
			f.mu.flying[e.sequence] = true
			return e, 0
		}
	}
	return entry{}, maxSleep
}

// landed notes that the timer of a sequence does not fire now. It lets it wait
// again, until a time that is not zero.
func (f *firing) landed(sequence uint64, again time.Time) {
	f.mu.Lock()
	delete(f.mu.flying, sequence)
	f.mu.Unlock()
	if !again.IsZero() {
		f.push(entry{again.UnixMilli(), sequence})
	}
}

// fireOne fires a timer, and deletes it by its sequence: one that replaced it
// meanwhile stays. It returns when it shall fire again, zero for never.
func (f *firing) fireOne(ctx context.Context, sequence uint64) (again time.Time) {
	timer, err := f.timers.Get(ctx, sequence)
	switch {
	case errors.Is(err, streams.ErrNoTimer):
		f.fired(sequence)
		return time.Time{}
	case err == nil && timer.At.After(f.opts.Clock.Now()):
		return timer.At
	}
	if err == nil {
		err = f.opts.Fire(ctx, timer)
	}
	if err == nil {
		err = f.timers.Delete(ctx, sequence)
	}
	switch {
	case err == nil:
		f.fired(sequence)
		return time.Time{}
	case ctx.Err() != nil:
		return time.Time{} // the next owner finds it
	}
	return f.opts.Clock.Now().Add(f.failed(ctx, sequence, err))
}

// fired notes that NATS answers and that nothing is left to do for a timer.
func (f *firing) fired(sequence uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.tries, sequence)
	f.mu.away = false
}

// failed notes that a timer did not fire and returns after how long it shall
// again. That it fails is in the log once, and that NATS is away once for all
// timers.
func (f *firing) failed(ctx context.Context, sequence uint64, err error) (delay time.Duration) {
	f.mu.Lock()
	var tell bool
	if publish.Passing(err) {
		tell, delay = !f.mu.away, awayDelay
		f.mu.away = true
	} else {
		tries := f.mu.tries[sequence]
		tell, delay = tries == 0, min(minDelay<<min(tries, 10), maxDelay)
		f.mu.tries[sequence] = tries + 1
	}
	f.mu.Unlock()
	if tell {
		f.opts.Logger.WarnContext(ctx, "timer not fired yet", "sequence", sequence, "err", err)
	}
	return delay
}
