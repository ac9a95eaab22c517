package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// MaxValue is how many bytes an input or a result may have. One of more than 32 KiB
// is not part of the job's record: it is kept in the object store until the job goes.
const MaxValue = store.MaxValue

// BlobInfo is an input or a result that is kept in the object store.
type BlobInfo struct {
	Name string `json:"name"`
	Size int    `json:"size"` // in bytes
}

func describeBlob(b *machine.Blob) *BlobInfo {
	if b == nil {
		return nil
	}
	return &BlobInfo{Name: b.Name, Size: b.Size}
}

// checkInput refuses what could not be stored.
func checkInput(kind string, input json.RawMessage) error {
	if len(input) > MaxValue { // before it is read
		return fmt.Errorf("engine: submit %s: input has %d bytes, and up to %d are stored: put it elsewhere and pass a reference", kind, len(input), MaxValue)
	}
	if len(input) > 0 && !json.Valid(input) {
		var v any
		err := json.Unmarshal(input, &v)
		return fmt.Errorf("engine: submit %s: input is no JSON: %w", kind, err)
	}
	return nil
}

// checkResult refuses what could not be stored. Another attempt would fare no better.
func checkResult(result json.RawMessage) error {
	if len(result) > MaxValue {
		return Fail(fmt.Errorf("the result has %d bytes, and up to %d are stored: put it elsewhere and return a reference", len(result), MaxValue))
	}
	return nil
}

const (
	// fetchFor is how long an attempt tries to get its input, while NATS is away or
	// the object store does not answer, before it gives the job back to be tried
	// again that much later.
	fetchFor = 30 * time.Second
	// fetchPause is the pause between two tries.
	fetchPause = 250 * time.Millisecond
)

// input returns the input of a job that this node holds. If it cannot be had, what
// that leads to is another attempt and no failure, unless the input is gone.
func (h *hand) input(ctx context.Context, j machine.Job, ev machine.Erred) (json.RawMessage, machine.Event) {
	if j.InputBlob == nil {
		return j.Input, nil
	}
	trying, cancel := context.WithTimeout(ctx, fetchFor)
	defer cancel()
	for {
		input, err := h.eng.store.Fetch(trying, j.InputBlob)
		ev.At = h.eng.clock.Now()
		switch {
		case err == nil:
			return input, nil
		case gone(err):
			return nil, conclude(nil, nil, Fail(fmt.Errorf("its input is lost: submit the job again: %w", err)), ev)
		case ctx.Err() != nil:
			return nil, conclude(context.Cause(ctx), nil, context.Cause(ctx), ev)
		case trying.Err() != nil:
			return nil, returned(ev.Hold, fmt.Errorf("its input could not be fetched: %w", err), ev.At.Add(fetchFor))
		}
		h.log.DebugContext(ctx, "input is fetched again", "job", j.ID, "err", err)
		pause(trying, fetchPause)
	}
}

// gone reports whether an error says that a blob cannot be had any more.
func gone(err error) bool { return errors.Is(err, blobs.ErrMissing) || errors.Is(err, blobs.ErrBroken) }

// fetch fills in the input and the result that are not part of the record of a job.
// Those that are gone stay empty.
func (e *Engine) fetch(ctx context.Context, info *JobInfo, j machine.Job) error {
	for _, value := range []struct {
		blob *machine.Blob
		to   *json.RawMessage
	}{{j.InputBlob, &info.Input}, {j.ResultBlob, &info.Result}} {
		if value.blob == nil {
			continue
		}
		data, err := e.store.Fetch(ctx, value.blob)
		if err != nil && !gone(err) {
			return err
		}
		*value.to = data
	}
	return nil
}

// withResult describes a job that has ended, with its result.
func (e *Engine) withResult(ctx context.Context, entry store.Entry) (JobInfo, error) {
	info := describe(entry)
	if entry.Value.ResultBlob == nil {
		return info, nil
	}
	result, err := e.store.Fetch(ctx, entry.Value.ResultBlob)
	info.Result = result
	return info, err
}
