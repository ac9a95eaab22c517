package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
)

// waitReread is how often a waiter reads although it heard nothing: an
// announcement may be lost.
const waitReread = 30 * time.Second

// Wait waits until the job has ended and returns its result. A job that failed
// or was cancelled is a [*JobError].
func (h *Handle[Out]) Wait(ctx context.Context) (Out, error) {
	var out Out
	info, err := h.eng.Wait(ctx, h.ID)
	if err == nil {
		err = info.Err()
	}
	if err != nil || len(info.Result) == 0 {
		return out, err
	}
	if err := json.Unmarshal(info.Result, &out); err != nil {
		return out, fmt.Errorf("engine: wait for %s: its result does not fit %T: %w", h.ID, out, err)
	}
	return out, nil
}

// Get reads the job.
func (h *Handle[Out]) Get(ctx context.Context) (JobInfo, error) { return h.eng.Get(ctx, h.ID) }

// Wait waits until a job has ended, however it did, and returns it.
func (e *Engine) Wait(ctx context.Context, id string) (JobInfo, error) {
	if err := checkID(id); err != nil {
		return JobInfo{}, err
	}
	nc := e.pub.Conn()
	ended := make(chan *nats.Msg, 8)
	sub, err := nc.ChanSubscribe(e.ns.EndedSubject(id), ended)
	if err != nil {
		return JobInfo{}, fmt.Errorf("engine: wait for %s: %w", id, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	back := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(back)
	again := time.NewTicker(waitReread)
	defer again.Stop()
	for {
		entry, err := e.store.Get(ctx, id)
		var info JobInfo
		if err == nil && entry.Value.State.Final() && entry.Value.State != machine.Removing {
			info, err = e.withResult(ctx, entry)
		}
		switch {
		case err == nil && entry.Value.State == machine.Removing:
			return JobInfo{}, fmt.Errorf("engine: wait for %s: it is being removed: %w", id, ErrNotFound)
		case err == nil && entry.Value.State.Final():
			return info, nil
		case gone(err), errors.Is(err, ErrNotFound), errors.Is(err, store.ErrUnreadable), errors.Is(err, publish.ErrClosed), err != nil && nc.IsClosed():
			return JobInfo{}, fmt.Errorf("engine: wait for %s: %w", id, err)
		}
		retry := time.NewTimer(time.Second)
		if err == nil {
			retry.Stop() // else NATS is away: read soon
		}
		select {
		case <-ctx.Done():
			retry.Stop()
			return JobInfo{}, fmt.Errorf("engine: wait for %s: %w", id, context.Cause(ctx))
		case <-ended:
		case <-back:
		case <-again.C:
		case <-retry.C:
		}
		retry.Stop()
	}
}
