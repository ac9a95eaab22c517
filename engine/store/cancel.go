package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// ErrRunning is returned by [Store.Cancel] for a job that has started.
var ErrRunning = errors.New("store: the job is running")

// Cancel ends a job that nobody runs: one write, → cancelled, and the item is
// withdrawn. A job that has ended as cancelled stays as it is; one that ended
// otherwise is a [*machine.MoveError]; one that runs is refused with
// [ErrRunning].
func (s *Store) Cancel(ctx context.Context, id, cause string) (Entry, error) {
	for try := 0; ; try++ {
		entry, err := s.Get(ctx, id)
		if err != nil {
			return Entry{}, err
		}
		switch entry.Value.State {
		case machine.Cancelled:
			return entry, s.pay(ctx, entry, passing)
		case machine.Running:
			return entry, fmt.Errorf("%w: %s on node %s", ErrRunning, id, entry.Value.Lease.Node)
		default:
		}
		entry, err = s.move(ctx, entry, machine.Stopped{Cause: cause, At: time.Now().UTC()})
		if err != nil {
			return entry, err
		}
		if entry.Value.State == machine.Cancelled {
			return entry, s.pay(ctx, entry, passing)
		}
		if err := s.pause(ctx, try); err != nil {
			return Entry{}, err
		}
	}
}
