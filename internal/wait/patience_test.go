package wait_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/internal/wait"
)

var errAway = errors.New("away")

// trial is one Try that fails with errAway for some time, and then ends.
type trial struct {
	patience, away time.Duration
	then           error
	took           time.Duration // at least
	told           []time.Duration
	want           error
}

func TestPatience(t *testing.T) {
	t.Parallel()
	errOther := errors.New("other")
	const s = time.Second
	for name, tr := range map[string]trial{
		"at once":       {},
		"other":         {patience: time.Hour, then: errOther, want: errOther},
		"none":          {away: s, want: errAway},
		"a moment":      {patience: 15 * s, away: 500 * time.Millisecond, took: 500 * time.Millisecond},
		"a while":       {patience: 15 * s, away: 12 * s, took: 12 * s, told: []time.Duration{s, 11 * s}},
		"other, later":  {patience: 15 * s, away: 5 * s, then: errOther, took: 5 * s, told: []time.Duration{s}, want: errOther},
		"for too long":  {patience: 15 * s, away: time.Hour, took: 15 * s, told: []time.Duration{s, 11 * s}, want: errAway},
		"without limit": {patience: math.MaxInt64, away: 25 * s, took: 25 * s, told: []time.Duration{s, 11 * s, 21 * s}},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, tr.run) })
	}
}

func (tr trial) run(t *testing.T) {
	began := time.Now()
	var told []time.Duration
	p := wait.Patience{
		For:     tr.patience,
		Passing: func(err error) bool { return errors.Is(err, errAway) },
		Tell:    func(error) { told = append(told, time.Since(began).Truncate(time.Second)) },
	}
	err := p.Try(t.Context(), func(context.Context) error {
		if time.Since(began) < tr.away {
			return errAway
		}
		return tr.then
	})
	if !errors.Is(err, tr.want) {
		t.Errorf("got %v, want %v", err, tr.want)
	}
	if took := time.Since(began); took < tr.took || took > tr.took+time.Second {
		t.Errorf("it took %v, want %v", took, tr.took)
	}
	if d := cmp.Diff(tr.told, told); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
}

// The end of the context ends the pause, and the last failure is returned.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Millisecond)
		defer cancel()
		began := time.Now()
		p := wait.Patience{For: time.Hour, Passing: func(error) bool { return true }}
		err := p.Try(ctx, func(context.Context) error { return errAway })
		if took := time.Since(began); !errors.Is(err, errAway) || took != 90*time.Millisecond {
			t.Errorf("it ended with %v after %v", err, took)
		}
	})
}
