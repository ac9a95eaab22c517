package attempt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/wait"
)

const (
	// fetchFor is how long an attempt tries to get its input, while NATS is away or
	// the object store does not answer, before it gives the job back to be tried
	// again that much later.
	fetchFor = 30 * time.Second
	// fetchPause is the pause between two tries.
	fetchPause = 250 * time.Millisecond
)

// input returns the input of a job that this node holds: that of a part is its
// parent's. If it cannot be had, what that leads to is another attempt and no
// failure, unless the input is gone.
func (r *Runner) input(ctx context.Context, j machine.Job, ev machine.Erred) (json.RawMessage, machine.Event) {
	if j.InputBlob == nil && j.Parent == nil {
		return j.Input, nil
	}
	trying, cancel := context.WithTimeout(ctx, fetchFor)
	defer cancel()
	for {
		input, err := r.opts.Store.Input(trying, j)
		ev.At = r.opts.Clock.Now()
		switch {
		case err == nil:
			return input, nil
		case errors.Is(err, store.ErrNotFound):
			return nil, conclude(nil, nil, Fail(fmt.Errorf("the job that it is a part of is gone: %w", err)), ev)
		case blobs.Gone(err):
			return nil, conclude(nil, nil, Fail(fmt.Errorf("its input is lost: submit the job again: %w", err)), ev)
		case ctx.Err() != nil:
			return nil, conclude(context.Cause(ctx), nil, context.Cause(ctx), ev)
		case trying.Err() != nil:
			return nil, returned(ev.Hold, fmt.Errorf("its input could not be fetched: %w", err), ev.At.Add(fetchFor))
		}
		r.opts.Logger.DebugContext(ctx, "input is fetched again", "job", j.ID, "err", err)
		wait.For(trying, fetchPause)
	}
}
