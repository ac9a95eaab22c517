package streams

import (
	"context"
	"fmt"
	"math"
	"time"
)

// MostEnded is how many records of jobs that have ended a namespace keeps for as
// long as they should be: each costs the server some 250 bytes of memory.
const MostEnded = 1_000_000

const (
	// minRetention is what retentions do not shrink below: whoever waits for a
	// job, or submits it again, may be slow.
	minRetention = 10 * time.Minute
	// halving is the part of the limit by which each further excess halves the
	// retentions.
	halving = 0.05

	// endedAge is after how long records are counted again. Far below the limit
	// that is more rarely, since nobody ends so many jobs meanwhile.
	endedAge    = 5 * time.Second
	farEndedAge = 30 * time.Second
)

// ended is how many records there were of jobs that have ended.
type ended struct {
	counted time.Time
	records uint64
}

// Ended counts the records of jobs that have ended, or a few less: all records
// but those that have an item or a timer. A job with several timers counts for
// as many.
func (l *Limits) Ended(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	if _, err := l.driven(ctx); err != nil {
		return 0, fmt.Errorf("streams: count jobs that have ended: %w", err)
	}
	return l.ended.Load().records, nil
}

// Shrink returns for how long a record is kept that should be for d. That is d
// while there are few enough of jobs that have ended. Beyond that each excess of
// five percent halves it, down to ten minutes: so the records of a namespace that
// ends a thousand jobs a second and keeps them for a day stay below one and a half
// times the limit, after those of the first minutes have gone.
//
// As a rule it costs nothing: one caller counts every few seconds, and all others
// go by what it found. While the server does not answer, what was found last
// counts.
func (l *Limits) Shrink(ctx context.Context, d time.Duration) time.Duration {
	last := l.ended.Load()
	if (last == nil || !last.fresh(l.opts.MostEnded)) && l.counting.TryLock() {
		defer l.counting.Unlock()
		if _, err := l.Ended(ctx); err != nil && last == nil {
			l.count(0, 0)
		} else if err != nil {
			l.count(last.records, 0)
		}
		last = l.ended.Load()
	}
	if last == nil {
		return d // somebody counts for the first time
	}
	return last.shrink(d, l.opts.MostEnded)
}

// count notes how many records, and how many that drive a job, there are.
func (l *Limits) count(records, driven uint64) {
	l.ended.Store(&ended{time.Now(), records - min(records, driven)})
}

// fresh reports whether e still counts, with a limit.
func (e *ended) fresh(limit uint64) bool {
	age := endedAge
	if e.records < limit/2 {
		age = farEndedAge
	}
	return time.Since(e.counted) < age
}

// shrink returns d as it is shortened above a limit.
func (e *ended) shrink(d time.Duration, limit uint64) time.Duration {
	if e.records <= limit || d <= minRetention {
		return d
	}
	excess := float64(e.records-limit) / float64(limit)
	return max(time.Duration(float64(d)*math.Exp2(-excess/halving)).Truncate(time.Second), minRetention)
}
