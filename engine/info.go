package engine

import (
	"encoding/json"
	"time"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
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
	Wait        *string         `json:"wait"`     // what it waits for: retry, delay, snooze, kind (no handler), turn, or a sentence
	Pin         *PinInfo        `json:"pin"`      // the node that it is for
	Parent      *string         `json:"parent"`   // the job that waits for it
	Part        *string         `json:"part"`     // its node, or its number, among its parent's
	Children    *ChildrenInfo   `json:"children"` // of a broadcast, or a sharded job
	Schedule    *string         `json:"schedule"` // that made it
	Tick        *TickInfo       `json:"tick"`     // for which that made it
	Created     *time.Time      `json:"created_at"`
	Started     *time.Time      `json:"started_at"` // of the last attempt; of a broadcast, or a sharded job, when it got its parts
	Finished    *time.Time      `json:"finished_at"`
	Due         *time.Time      `json:"due_at"`          // of a job that is scheduled or retrying; of a tick the time of that, always
	NextAttempt *time.Time      `json:"next_attempt_at"` // when one that is scheduled or retrying is tried, if that is known
	StartBy     *time.Time      `json:"start_by"`        // when it fails unless it has started
	Deadline    *time.Time      `json:"deadline"`        // when it fails unless it has ended
	Unique      *UniqueInfo     `json:"unique"`          // the key that it was submitted with
	Revision    uint64          `json:"revision"`
	Attempts    []AttemptInfo   `json:"attempts"` // the first two and the last eight
}

// BlobInfo is an input or a result that is kept in the object store.
type BlobInfo struct {
	Name string `json:"name"`
	Size int    `json:"size"` // in bytes
}

// PinInfo says for which node a job is.
type PinInfo struct {
	Node        string            `json:"node"`        // empty while there is none
	Incarnation uint64            `json:"incarnation"` // of the node, 0 if it was not seen
	Selector    map[string]string `json:"selector"`    // null if the job is for no other node
	Key         string            `json:"key,omitempty"`
	Else        string            `json:"else"` // wait, any or fail
}

// TickInfo says for which tick a schedule made a job: due_at is when that was.
type TickInfo struct {
	Number int64      `json:"number"` // among all ticks of the schedule, from 1; 0 if not the clock made the job
	By     string     `json:"by"`     // clock, hand or backfill
	Count  int64      `json:"count"`  // how many ticks the record stands for: more than 1 if they were skipped together
	Until  *time.Time `json:"until"`  // the last one of them
}

// ChildrenInfo says what a broadcast or a sharded job is made of. How its parts have
// ended is in a [BroadcastInfo], of those that have. Elsewhere it is what was counted
// when the job ended by them: what had not ended then counts as cancelled.
type ChildrenInfo struct {
	Shards      bool              `json:"shards"`
	Total       int               `json:"total"` // 0 while a broadcast is not due
	OnLost      string            `json:"on_lost"`
	Done        string            `json:"done"` // all, quorum, any or a number
	MaxParallel int               `json:"max_parallel"`
	Selector    map[string]string `json:"selector"`
	Strategy    string            `json:"strategy,omitempty"` // of shards
	Succeeded   int               `json:"succeeded"`
	Failed      int               `json:"failed"`
	Lost        int               `json:"lost"`
	Cancelled   int               `json:"cancelled"`
	Unstarted   int               `json:"unstarted"` // that had no record when the job ended
}

// count counts how parts have ended.
func (c *ChildrenInfo) count(parts []PartInfo) {
	c.Succeeded, c.Failed, c.Lost, c.Cancelled, c.Unstarted = 0, 0, 0, 0, 0
	for _, p := range parts {
		switch machine.State(p.State) {
		case machine.Succeeded:
			c.Succeeded++
		case machine.Failed:
			c.Failed++
		case machine.Lost:
			c.Lost++
		case machine.Cancelled:
			if p.Ended == nil { // it has no record
				c.Unstarted++
			} else {
				c.Cancelled++
			}
		default: // it goes on
		}
	}
}

// UniqueInfo is the unique key that a job was submitted with.
type UniqueInfo struct {
	Key   string     `json:"key"`
	Scope string     `json:"scope"` // pending, active or period
	Until *time.Time `json:"until"` // of the period
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
	info.Pin, info.Children = describePin(j.Pin), describeChildren(j.Fan)
	if j.Parent != nil {
		info.Parent, info.Part = &j.Parent.ID, &j.Parent.Part
	}
	if p := j.Progress; p != nil {
		info.Progress = &ProgressInfo{Done: p.Done, Total: p.Total, Note: p.Note, At: moment(p.At)}
	}
	if j.State.Delayed() {
		info.Due = moment(j.Due) // others keep the one that they had
		info.NextAttempt = info.Due
	}
	if j.Wait == machine.WaitTurn {
		info.NextAttempt = nil
	}
	if j.Tick != nil {
		info.Schedule, info.Tick, info.Due = &j.Tick.Schedule, describeTick(*j.Tick), moment(j.Tick.At)
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

func describeBlob(b *machine.Blob) *BlobInfo {
	if b == nil {
		return nil
	}
	return &BlobInfo{Name: b.Name, Size: b.Size}
}

func describePin(p *machine.Pin) *PinInfo {
	if p == nil {
		return nil
	}
	info := &PinInfo{Node: p.Node, Incarnation: p.Incarnation, Else: string(p.Else)}
	if p.Rule != nil {
		info.Selector, info.Key = p.Rule.Select, p.Rule.Key
		if info.Selector == nil {
			info.Selector = map[string]string{}
		}
	}
	return info
}

func describeTick(t machine.Tick) *TickInfo {
	info := &TickInfo{Number: t.Number, By: string(t.By), Count: 1}
	if t.By == "" {
		info.By = "clock"
	}
	if t.More != nil {
		info.Count, info.Until = t.More.Count+1, moment(t.More.Until)
	}
	return info
}

func describeChildren(f *machine.Fan) *ChildrenInfo {
	if f == nil {
		return nil
	}
	t := f.Tally
	return &ChildrenInfo{
		Shards: f.Shards, Total: f.Total, OnLost: string(f.OnLost), Done: string(doneOf(*f)), MaxParallel: f.MaxParallel,
		Selector: f.Select, Strategy: f.Strategy,
		Succeeded: t.Succeeded, Failed: t.Failed, Lost: t.Lost, Cancelled: t.Cancelled, Unstarted: t.Unstarted,
	}
}

func describeUnique(u *machine.Unique) *UniqueInfo {
	if u == nil {
		return nil
	}
	return &UniqueInfo{Key: u.Key, Scope: string(u.Scope), Until: moment(u.Until)}
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
