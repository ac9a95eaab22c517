package store

import (
	"bytes"
	"context"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// Report stores what the attempt that runs entry under token says of itself, and
// returns the job as it is stored then: the attempt's outcome builds on that. An
// attempt that does not hold the job any more is refused by a
// [*machine.MoveError].
//
// It may be stored although there is an error, and nothing depends on it: if the
// process dies, the next attempt finds what was reported before.
func (s *Store) Report(ctx context.Context, entry Entry, token string, r machine.Report) (Entry, error) {
	ev := machine.Reported{Hold: machine.Hold{Token: token, At: s.Clock.Now(), Report: &r}}
	for try := 0; ; try++ {
		next, err := entry.Value.Apply(ev)
		if err != nil {
			return entry, err
		}
		stored, err := s.move(ctx, entry, ev)
		if err != nil {
			return entry, err
		}
		entry = stored
		if entry.Value.Held(token) && same(entry.Value, next) {
			return entry, nil
		}
		if err := s.pause(ctx, try); err != nil {
			return entry, err
		}
	}
}

// same reports whether a and b say the same of their attempt.
func same(a, b machine.Job) bool {
	if a.Progress == nil || b.Progress == nil {
		return a.Progress == b.Progress && bytes.Equal(a.Details, b.Details)
	}
	p, q := *a.Progress, *b.Progress
	sameTime := p.At.Equal(q.At)
	p.At, q.At = time.Time{}, time.Time{}
	return sameTime && p == q && bytes.Equal(a.Details, b.Details)
}
