package machine

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The waits that a reader expects, without jitter.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		retry Retry
		want  map[int]time.Duration
	}{
		{"defaults", Retry{}, map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 12: 2048 * time.Second, 13: time.Hour, math.MaxInt: time.Hour}},
		{"no failure yet", Retry{}, map[int]time.Duration{0: time.Second, -1: time.Second, math.MinInt: time.Second}},
		{"fixed", Retry{Delay: 5 * time.Second, Factor: 1}, map[int]time.Duration{1: 5 * time.Second, 2: 5 * time.Second, math.MaxInt: 5 * time.Second}},
		{"longer than the default bound", Retry{Delay: 2 * time.Hour}, map[int]time.Duration{1: 2 * time.Hour, 2: 2 * time.Hour}},
		{"bounded", Retry{Factor: 10, MaxDelay: time.Minute}, map[int]time.Duration{1: time.Second, 2: 10 * time.Second, 3: time.Minute}},
		{"bounded below the delay", Retry{Delay: time.Minute, MaxDelay: time.Second}, map[int]time.Duration{1: time.Second, 2: time.Second}},
		{"list", Retry{Delays: []time.Duration{0, time.Minute}, Delay: time.Hour, MaxDelay: time.Second}, map[int]time.Duration{1: 0, 2: time.Minute, 3: time.Minute}},
		{"part of a millisecond", Retry{Delay: 1999 * time.Microsecond, Factor: 1}, map[int]time.Duration{1: time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for n, want := range c.want {
				if got := c.retry.After(n, 0.5); got != want {
					t.Errorf("After(%d, 0.5) of %+v is %v, want %v", n, c.retry, got, want)
				}
				c.retry.Jitter = -1
				if got := c.retry.After(n, 0); got != want {
					t.Errorf("After(%d, 0) of %+v is %v, want %v", n, c.retry, got, want)
				}
				c.retry.Jitter = 0
			}
		})
	}
}

// someFailures draws how often a job failed, far beyond what it can.
var someFailures = rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, math.MaxInt-1))

// The longest wait of all: a few lifetimes.
const longestWait = 100 * 365 * 24 * time.Hour

func TestRetryBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, n := someRetry.Draw(t, "retry"), someFailures.Draw(t, "failures")
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		got := r.After(n, rapid.Float64Range(0, 0.999).Draw(t, "random"))
		if got < 0 || got > longestWait || got%time.Millisecond != 0 {
			t.Fatalf("After(%d) of %+v is %v", n, r, got)
		}
		jitter := max(r.Jitter, 0)
		if r.Jitter == 0 {
			jitter = defaultJitter
		}
		r.Jitter = -1
		base := float64(r.After(n, 0))
		// A rounded base may miss a millisecond, and one of lifetimes is cut.
		low, high := base*(1-jitter)-2e6, (base+1e6)*(1+jitter)+1e6
		if base < math.MaxInt64/8 && (float64(got) < low || float64(got) > high) {
			t.Fatalf("After(%d) of %+v is %v with a jitter of %v, and %v without", n, r, got, jitter, time.Duration(base))
		}
	})
}

// Without jitter, no wait is shorter than the one before it.
func TestRetryGrows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, n := someRetry.Draw(t, "retry"), someFailures.Draw(t, "failures")
		r.Jitter, r.Delays = -1, nil
		if before, after := r.After(n, 0), r.After(n+1, 0); after < before {
			t.Fatalf("%+v waits %v after failure %d, and %v after the next", r, before, n, after)
		}
	})
}

// With jitter, a higher number is a longer wait.
func TestRetrySpreads(t *testing.T) {
	t.Parallel()
	r := Retry{Delay: time.Minute, Jitter: 1}
	for _, c := range []struct {
		random float64
		want   time.Duration
	}{{0, 0}, {0.25, 30 * time.Second}, {0.5, time.Minute}, {0.75, 90 * time.Second}} {
		if got := r.After(1, c.random); got != c.want {
			t.Errorf("After(1, %v) is %v, want %v", c.random, got, c.want)
		}
	}
}

// What Validate refuses is told in one line that says what to use.
func TestRetryValidate(t *testing.T) {
	t.Parallel()
	for _, r := range []Retry{
		{Delay: -1},
		{MaxDelay: -1},
		{MaxAge: -1},
		{Delays: []time.Duration{time.Second, -1}},
		{Factor: 0.9},
		{Factor: -1},
		{Factor: math.Inf(1)},
		{Factor: math.NaN()},
		{Jitter: 1.1},
		{Jitter: math.Inf(-1)},
		{Jitter: math.NaN()},
	} {
		err := r.Validate()
		if err == nil || !strings.Contains(err.Error(), ": use ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: got error %v, want a line that says what to use", r, err)
		}
	}
	if err := (Retry{Jitter: -1, Factor: 1, Delays: []time.Duration{0}}).Validate(); err != nil {
		t.Error(err)
	}
}
