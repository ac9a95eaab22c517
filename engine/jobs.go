package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

// Get reads a job. It returns [ErrNotFound] for one that is not there. Of a job
// that has been pending for more than a moment it also finds out what that waits
// for, which costs a few requests more; see [Engine.Why].
func (e *Engine) Get(ctx context.Context, id string) (JobInfo, error) {
	if err := checkID(id); err != nil {
		return JobInfo{}, err
	}
	entry, err := e.store.Get(ctx, id)
	if err != nil {
		return JobInfo{}, fmt.Errorf("engine: get job: %w", err)
	}
	info := describe(entry)
	if err := e.fetch(ctx, &info, entry.Value); err != nil {
		return JobInfo{}, fmt.Errorf("engine: get job: %w", err)
	}
	if why := e.waits(ctx, entry); why != "" {
		info.Wait = &why
	}
	return info, nil
}

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
		if err != nil && !blobs.Gone(err) {
			return err
		}
		*value.to = data
	}
	return nil
}

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
		case blobs.Gone(err), errors.Is(err, ErrNotFound), errors.Is(err, store.ErrUnreadable), errors.Is(err, publish.ErrClosed), err != nil && nc.IsClosed():
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

// withResult describes a job that has ended, with its result. If that is gone because
// somebody had the job run once more meanwhile, the error says only that it is not known.
func (e *Engine) withResult(ctx context.Context, entry store.Entry) (JobInfo, error) {
	info := describe(entry)
	if entry.Value.ResultBlob == nil {
		return info, nil
	}
	result, err := e.store.Fetch(ctx, entry.Value.ResultBlob)
	if blobs.Gone(err) {
		if now, missing := e.store.Get(ctx, entry.Key); missing != nil || now.Revision != entry.Revision {
			return info, fmt.Errorf("engine: job %s goes on: %w", entry.Key, publish.ErrUnknown)
		}
	}
	info.Result = result
	return info, err
}

// ListOptions says which jobs to list. The zero value of a field means all.
type ListOptions struct {
	State string
	Queue string
	Kind  string
	// Parent is the ID of a broadcast or a sharded job whose parts are meant.
	Parent string
	// Schedule is the schedule that made the jobs.
	Schedule string
	// Limit is how many jobs to list. Default 100.
	Limit int

	broadcasts bool // only these
}

func (o ListOptions) validate() error {
	if o.State != "" && !machine.State(o.State).Known() {
		return fmt.Errorf("engine: list jobs: there is no state %q: use scheduled, pending, running, retrying, waiting, succeeded, failed, cancelled, skipped or lost", o.State)
	}
	if o.Limit < 0 {
		return fmt.Errorf("engine: list jobs: limit is %d: use 1 or more, or 0 for the default", o.Limit)
	}
	if o.Parent != "" {
		if err := checkID(o.Parent); err != nil {
			return err
		}
	}
	if o.Schedule != "" {
		if err := name.Check("schedule", o.Schedule); err != nil {
			return err
		}
	}
	if o.Queue != "" {
		return name.Check("queue", o.Queue)
	}
	return nil
}

func (o ListOptions) match(j machine.Job) bool {
	return (o.State == "" || o.State == string(j.State)) && (o.Kind == "" || o.Kind == j.Kind) &&
		(o.Parent == "" || j.Parent != nil && j.Parent.ID == o.Parent) &&
		(o.Schedule == "" || j.Tick != nil && j.Tick.Schedule == o.Schedule) && (!o.broadcasts || j.Fan != nil && !j.Fan.Shards)
}

// List returns jobs, the most recently changed first. It may be some
// milliseconds behind.
func (e *Engine) List(ctx context.Context, opts ...ListOptions) ([]JobInfo, error) {
	o := first(opts)
	if o.Limit == 0 {
		o.Limit = 100
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	var list []JobInfo
	err := e.store.Recent(ctx, o.Queue, func(entry store.Entry) bool {
		if o.match(entry.Value) {
			list = append(list, describe(entry))
		}
		return len(list) < o.Limit
	})
	if err != nil {
		return nil, fmt.Errorf("engine: list jobs: %w", err)
	}
	slices.SortFunc(list, func(a, b JobInfo) int { return cmp.Compare(b.Revision, a.Revision) })
	return list, nil
}

// Watch calls visit with every job that matches and then with every change of
// one, until ctx ends. The limit does not matter. It costs the server a
// consumer while it lasts.
func (e *Engine) Watch(ctx context.Context, o ListOptions, visit func(JobInfo)) error {
	if err := o.validate(); err != nil {
		return err
	}
	return e.store.Watch(ctx, o.Queue, func(ev kv.Event[machine.Job]) {
		if ev.Kind == kv.Put && o.match(ev.Entry.Value) {
			visit(describe(ev.Entry))
		}
	})
}

// Cancel makes a job end, and returns it. One that nobody runs is cancelled then.
// One that runs ends when its handler does, whose context ends with
// [ErrCancelled]; unless it succeeds, it is cancelled. A job that was cancelled
// before stays as it is.
func (e *Engine) Cancel(ctx context.Context, id string) (JobInfo, error) {
	if err := checkID(id); err != nil {
		return JobInfo{}, err
	}
	e.knowRetention(ctx)
	entry, err := e.store.Cancel(ctx, id, "cancelled by request")
	if err != nil {
		return JobInfo{}, fmt.Errorf("engine: cancel job: %w", err)
	}
	return describe(entry), nil
}

// Delete removes a job that has ended, with everything that belongs to it; its ID
// is free then. One that has not ended is refused with [ErrNotEnded].
func (e *Engine) Delete(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := e.store.Delete(ctx, id); err != nil {
		return fmt.Errorf("engine: delete job: %w", err)
	}
	return nil
}

// Retry makes a job that has ended pending once more, and returns it. It has no
// failures then, and no limits of time, which were those of its first life; its
// attempts are kept and go on counting. With states, only a job that ended in
// one of them is retried. One that has not ended is refused with [ErrNotEnded].
func (e *Engine) Retry(ctx context.Context, id string, states ...string) (JobInfo, error) {
	if err := checkID(id); err != nil {
		return JobInfo{}, err
	}
	from := make([]machine.State, len(states))
	for i, s := range states {
		from[i] = machine.State(s)
	}
	entry, err := e.store.Redrive(ctx, id, from...)
	if err != nil {
		return JobInfo{}, fmt.Errorf("engine: retry job: %w", err)
	}
	return describe(entry), nil
}

func checkID(id string) error {
	if _, _, err := name.SplitJobID(id); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}
