package machine

import (
	"fmt"
	"math"
	"time"
)

// Retry says how long a job waits between a failure and its next attempt. The
// zero value of a field means its default.
type Retry struct {
	// Delay is the wait after the first failure. Default 1s.
	Delay time.Duration `json:"delay_ns,omitempty"`
	// Factor multiplies the delay from failure to failure. Default 2; 1 keeps
	// it.
	Factor float64 `json:"factor,omitempty"`
	// MaxDelay bounds the delay. Default 1h, or Delay if that is longer.
	MaxDelay time.Duration `json:"max_delay_ns,omitempty"`
	// Delays are the waits after the first failure, the second and so on; the
	// last one repeats. They take the place of Delay, Factor and MaxDelay.
	Delays []time.Duration `json:"delays_ns,omitempty"`
	// Jitter is the share of the delay by which it may be shorter or longer
	// at random, up to 1. Default 0.1; below 0 for none.
	Jitter float64 `json:"jitter,omitempty"`
	// MaxAge is for how long after its first attempt began a job is tried
	// again. Default: as long as it has failures left.
	MaxAge time.Duration `json:"max_age_ns,omitempty"`
}

// The defaults of a [Retry].
const (
	defaultDelay    = time.Second
	defaultFactor   = 2
	defaultMaxDelay = time.Hour
	defaultJitter   = 0.1
)

// After returns the wait after the n-th failure, n from 1, for a random number
// from 0 up to 1.
func (r Retry) After(n int, random float64) time.Duration {
	jitter := r.Jitter
	if jitter == 0 {
		jitter = defaultJitter
	}
	wait := r.base(max(n, 1)) * (1 + max(jitter, 0)*(2*random-1))
	return time.Duration(min(max(wait, 0), math.MaxInt64/4)).Truncate(time.Millisecond)
}

// base returns the wait after the n-th failure in nanoseconds, without jitter.
func (r Retry) base(n int) float64 {
	if len(r.Delays) > 0 {
		return float64(r.Delays[min(n, len(r.Delays))-1])
	}
	delay, factor, longest := r.Delay, r.Factor, r.MaxDelay
	if delay == 0 {
		delay = defaultDelay
	}
	if factor == 0 {
		factor = defaultFactor
	}
	if longest == 0 {
		longest = max(defaultMaxDelay, delay)
	}
	return min(float64(delay)*math.Pow(factor, float64(n-1)), float64(longest))
}

// retryOf returns the policy for j, given that of its definition.
func (j Job) retryOf(definition Retry) Retry {
	if j.Retry != nil {
		return *j.Retry
	}
	return definition
}

// Validate reports what is wrong with r.
func (r Retry) Validate() error {
	for _, d := range append([]time.Duration{r.Delay, r.MaxDelay, r.MaxAge}, r.Delays...) {
		if d < 0 {
			return fmt.Errorf("retry: a duration is %v: use a positive one", d)
		}
	}
	if r.Factor != 0 && (r.Factor < 1 || math.IsInf(r.Factor, 0) || math.IsNaN(r.Factor)) {
		return fmt.Errorf("retry: factor is %v: use 1 or more, or 0 for the default", r.Factor)
	}
	if math.IsNaN(r.Jitter) || math.IsInf(r.Jitter, 0) || r.Jitter > 1 {
		return fmt.Errorf("retry: jitter is %v: use up to 1, or -1 for none", r.Jitter)
	}
	return nil
}
