package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
)

// JobInfo is a job as users see it. Its JSON is stable: programs rely on it.
// Times are in UTC; what is not there is null.
type JobInfo struct {
	ID          string          `json:"id"`
	Kind        string          `json:"kind"`
	Queue       string          `json:"queue"`
	State       string          `json:"state"` // see ARCHITECTURE.md
	Class       string          `json:"class"` // of priority: high, normal or low
	Attempt     int             `json:"attempt"`
	Failures    int             `json:"failures"`
	MaxAttempts int             `json:"max_attempts"`
	Node        *string         `json:"node"` // that runs it, or ran it last
	Fence       uint64          `json:"fence"`
	Input       json.RawMessage `json:"input"`
	Result      json.RawMessage `json:"result"`
	InputBlob   *BlobInfo       `json:"input_blob"`  // of an input that is not part of the record: lists do not fetch it
	ResultBlob  *BlobInfo       `json:"result_blob"` // and of a result
	Error       *ErrorInfo      `json:"error"`
	Progress    *ProgressInfo   `json:"progress"` // of the last attempt
	Details     json.RawMessage `json:"details"`  // what an attempt left for the next one
	Wait        *string         `json:"wait"`     // what it waits for: retry, delay, snooze, kind (no handler), or a sentence
	Parent      *string         `json:"parent"`   // the job that waits for it
	Created     *time.Time      `json:"created_at"`
	Started     *time.Time      `json:"started_at"` // of the last attempt
	Finished    *time.Time      `json:"finished_at"`
	Due         *time.Time      `json:"due_at"`   // of a job that is scheduled or retrying
	StartBy     *time.Time      `json:"start_by"` // when it fails unless it has started
	Deadline    *time.Time      `json:"deadline"` // when it fails unless it has ended
	Unique      *UniqueInfo     `json:"unique"`   // the key that it was submitted with
	Revision    uint64          `json:"revision"`
	Attempts    []AttemptInfo   `json:"attempts"` // the first two and the last eight
}

// ErrorInfo is why a job or an attempt failed.
type ErrorInfo struct {
	Message string `json:"message"`
	Code    string `json:"code,omitempty"`
	Stack   string `json:"stack,omitempty"` // of a handler that panicked
	// Causes are the errors in the chain that have more to say, depth first, up
	// to eight.
	Causes []CauseInfo `json:"causes,omitempty"`
}

// CauseInfo is one error of a chain.
type CauseInfo struct {
	Message string `json:"message"` // empty for the error itself
	// Depth is by how many errors this one is wrapped.
	Depth int `json:"depth,omitempty"`
	// Type is the name under which it is registered, see [RegisterError], and
	// Data the error as JSON.
	Type string          `json:"type,omitempty"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Err returns the error as it arrived, with what is registered in it, or nil for
// none.
func (e *ErrorInfo) Err() error {
	if e == nil {
		return nil
	}
	sent := machine.Error{Message: e.Message, Code: e.Code, Stack: e.Stack}
	for _, c := range e.Causes {
		sent.Causes = append(sent.Causes, machine.Cause(c))
	}
	return fault.Decode(sent)
}

// ProgressInfo is how far a handler says that it is.
type ProgressInfo struct {
	Done  int64      `json:"done"`
	Total int64      `json:"total"` // 0 if nobody knows it
	Note  string     `json:"note,omitempty"`
	At    *time.Time `json:"at"`
}

// AttemptInfo is one try at running a job.
type AttemptInfo struct {
	Number  int        `json:"number"`
	Node    string     `json:"node"`
	Started *time.Time `json:"started_at"`
	Ended   *time.Time `json:"ended_at"`
	// Outcome is succeeded, failed, returned, cancelled or lost, and empty
	// while the attempt runs.
	Outcome string     `json:"outcome"`
	Error   *ErrorInfo `json:"error"`
}

// Ended reports whether nothing will happen to the job any more.
func (j JobInfo) Ended() bool { return machine.State(j.State).Final() }

// Err returns a [*JobError] if the job ended without a result.
func (j JobInfo) Err() error {
	if !j.Ended() || machine.State(j.State) == machine.Succeeded {
		return nil
	}
	e := &JobError{ID: j.ID, State: j.State, err: j.Error.Err()}
	if j.Error != nil {
		e.Message, e.Code = j.Error.Message, j.Error.Code
	}
	return e
}

func describe(entry store.Entry) JobInfo {
	j := entry.Value
	queue, _, _ := name.SplitJobID(entry.Key) // a key that is no ID has no queue
	info := JobInfo{
		ID: entry.Key, Kind: j.Kind, Queue: queue, State: string(j.State), Class: shown(j.Class),
		Attempt: j.Attempt, Failures: j.Failures, MaxAttempts: j.Limit(), Fence: j.Fence,
		Input: j.Input, InputBlob: describeBlob(j.InputBlob), Result: j.Result, ResultBlob: describeBlob(j.ResultBlob),
		Error: describeError(j.Error), Unique: describeUnique(j.Unique),
		Created: moment(j.Created), Started: moment(j.Started), Finished: moment(j.Finished),
		StartBy: moment(j.StartBy), Deadline: moment(j.Deadline),
		Revision: entry.Revision, Attempts: make([]AttemptInfo, len(j.Attempts)),
	}
	info.Details = j.Details
	if p := j.Progress; p != nil {
		info.Progress = &ProgressInfo{Done: p.Done, Total: p.Total, Note: p.Note, At: moment(p.At)}
	}
	if j.State.Delayed() {
		info.Due = moment(j.Due) // others keep the one that they had
	}
	if why := waitOf(j); why != "" {
		info.Wait = &why
	}
	for i, a := range j.Attempts {
		info.Attempts[i] = AttemptInfo{
			Number: a.Number, Node: a.Node, Started: moment(a.Started), Ended: moment(a.Ended),
			Outcome: string(a.Outcome), Error: describeError(a.Error),
		}
		info.Node = &info.Attempts[i].Node
	}
	return info
}

// waitOf says what a job itself waits for.
func waitOf(j machine.Job) string {
	switch {
	case j.State == machine.Retrying:
		return "retry"
	case j.State == machine.Scheduled:
		return string(j.Wait)
	case j.State == machine.Running && j.Cancel != nil:
		return "end of the attempt: " + j.Cancel.Cause
	}
	return ""
}

func describeError(e *machine.Error) *ErrorInfo {
	if e == nil {
		return nil
	}
	info := &ErrorInfo{Message: e.Message, Code: e.Code, Stack: e.Stack}
	for _, c := range e.Causes {
		info.Causes = append(info.Causes, CauseInfo(c))
	}
	return info
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

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

// ListOptions says which jobs to list. The zero value of a field means all.
type ListOptions struct {
	State string
	Queue string
	Kind  string
	// Limit is how many jobs to list. Default 100.
	Limit int
}

func (o ListOptions) validate() error {
	if o.State != "" && !machine.State(o.State).Known() {
		return fmt.Errorf("engine: list jobs: there is no state %q: use one of %v", o.State, machine.States)
	}
	if o.Limit < 0 {
		return fmt.Errorf("engine: list jobs: limit is %d: use 1 or more, or 0 for the default", o.Limit)
	}
	if o.Queue != "" {
		return name.Check("queue", o.Queue)
	}
	return nil
}

func (o ListOptions) match(j machine.Job) bool {
	return (o.State == "" || o.State == string(j.State)) && (o.Kind == "" || o.Kind == j.Kind)
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

// Nodes returns the nodes that are there or were within the last day, by ID.
func (e *Engine) Nodes(ctx context.Context) ([]nodes.Member, error) {
	return nodes.List(ctx, e.pub, e.ns)
}

// Node returns a node that is there or was within the last day. It returns
// [ErrNotFound] otherwise.
func (e *Engine) Node(ctx context.Context, id string) (nodes.Member, error) {
	list, err := nodes.List(ctx, e.pub, e.ns)
	if err != nil {
		return nodes.Member{}, fmt.Errorf("engine: get node: %w", err)
	}
	for _, m := range list {
		if m.ID == id {
			return m, nil
		}
	}
	return nodes.Member{}, fmt.Errorf("engine: get node %s: %w", id, ErrNotFound)
}

func checkID(id string) error {
	if _, _, err := name.SplitJobID(id); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}
