package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
)

type jobCmd struct {
	Submit jobSubmitCmd `cmd:"" help:"Submit a job, or attach to the one that has its ID."`
	Get    jobGetCmd    `cmd:"" help:"Print a job."`
	Why    jobWhyCmd    `cmd:"" help:"Print why a job is where it is: what runs it, or what it waits for."`
	List   jobListCmd   `cmd:"" help:"List jobs, the most recently changed first."`
	Logs   jobLogsCmd   `cmd:"" help:"Print what the handlers of a job said, and commands wrote to standard error, in all its attempts."`
	Watch  jobWatchCmd  `cmd:"" help:"Print every change of jobs: of those given until they have ended, otherwise of all."`
	Cancel jobCancelCmd `cmd:"" help:"Cancel jobs. One that runs ends when its attempt does, which is told to."`
	Retry  jobRetryCmd  `cmd:"" help:"Run jobs that have ended once more, however they ended."`
	Delete jobDeleteCmd `cmd:"" help:"Delete jobs that have ended: their IDs are free then."`
}

type jobGetCmd struct {
	ID string `arg:"" help:"ID of the job: queue, dot, local ID."`
}

// Run prints a job.
func (c jobGetCmd) Run(ctx context.Context, e *env) error {
	return one(ctx, e, c.ID, func(eng *engine.Engine) (engine.JobInfo, error) { return eng.Get(ctx, c.ID) })
}

// one does something to one job and prints it.
func one(ctx context.Context, e *env, id string, do func(*engine.Engine) (engine.JobInfo, error)) error {
	if err := checkJobID(id); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	info, err := do(eng)
	if errors.Is(err, engine.ErrNotFound) {
		return notFound(e, id)
	}
	if err != nil {
		return err
	}
	return describe(e, info, jobFields(info))
}

func notFound(e *env, id string) error {
	return fmt.Errorf("there is no job %s in namespace %s: it never was, or its time has passed: see millrace job list", id, e.Namespace)
}

func checkJobID(id string) error {
	_, _, err := name.SplitJobID(id)
	return usage(err)
}

type jobListCmd struct {
	State    string `help:"Only jobs in this state." placeholder:"STATE"`
	Queue    string `help:"Only jobs of this queue." placeholder:"QUEUE"`
	Kind     string `help:"Only jobs of this kind." placeholder:"KIND"`
	Parent   string `help:"Only the parts of this broadcast, or the shards of this sharded job." placeholder:"JOB"`
	Schedule string `help:"Only jobs of this schedule." placeholder:"SCHEDULE"`
	Limit    int    `help:"How many jobs at most." default:"100"`
}

// Run prints jobs.
func (c jobListCmd) Run(ctx context.Context, e *env) error {
	if c.Limit < 1 {
		return usage(fmt.Errorf("--limit is %d: use 1 or more", c.Limit))
	}
	if err := checkWhich(c.State, c.Queue); err != nil {
		return err
	}
	if c.Parent != "" {
		if err := checkJobID(c.Parent); err != nil {
			return err
		}
	}
	if c.Schedule != "" {
		if err := name.Check("schedule", c.Schedule); err != nil {
			return usage(err)
		}
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	jobs, err := eng.List(ctx, engine.ListOptions{State: c.State, Queue: c.Queue, Kind: c.Kind, Parent: c.Parent, Schedule: c.Schedule, Limit: c.Limit})
	if err != nil {
		return err
	}
	return list(e, jobs, jobColumns)
}

// checkWhich checks the flags that say which jobs are meant.
func checkWhich(state, queue string) error {
	if state != "" && !machine.State(state).Known() {
		return usage(fmt.Errorf("--state is %q: use scheduled, pending, running, retrying, waiting, succeeded, failed, cancelled, skipped or lost", state))
	}
	return checkQueue(queue)
}

var jobColumns = []column[engine.JobInfo]{
	{"job", func(j engine.JobInfo) string { return j.ID }},
	{"kind", func(j engine.JobInfo) string { return j.Kind }},
	{"state", func(j engine.JobInfo) string { return j.State }},
	{"attempt", show.Attempt},
	{"node", func(j engine.JobInfo) string { return deref(j.Node) }},
	{"created", func(j engine.JobInfo) string { return show.Time(j.Created) }},
	{"wait", waitsFor},
	{"due", func(j engine.JobInfo) string { return show.Time(j.Due) }},
	{"took", func(j engine.JobInfo) string { return show.Took(j.Created, j.Finished) }},
	{"error", func(j engine.JobInfo) string { return show.Message(j.Error) }},
}

// waitsFor says what a job waits for.
func waitsFor(j engine.JobInfo) string {
	switch why := deref(j.Wait); why {
	case "kind":
		return "worker with kind " + j.Kind
	case "turn":
		return "turn of schedule " + deref(j.Schedule)
	default:
		return why
	}
}

// ticked says which schedule made a job, and for which of its ticks.
func ticked(j engine.JobInfo) string {
	t := j.Tick
	switch {
	case t == nil:
		return ""
	case t.By == "hand":
		return deref(j.Schedule) + ", by hand"
	case t.By == "backfill":
		return deref(j.Schedule) + ", by backfill"
	case t.Count > 1:
		return fmt.Sprintf("%s, tick %d and %d more until %s", deref(j.Schedule), t.Number, t.Count-1, show.Time(t.Until))
	}
	return fmt.Sprintf("%s, tick %d", deref(j.Schedule), t.Number)
}

// tried says when a job is tried next, if that is not when it is due.
func tried(j engine.JobInfo) string {
	if j.NextAttempt == nil || j.Due != nil && j.NextAttempt.Equal(*j.Due) {
		return ""
	}
	return show.Time(j.NextAttempt)
}

// valueText says what an input or a result is, or how large if it was not fetched.
func valueText(text json.RawMessage, blob *engine.BlobInfo) string {
	if len(text) == 0 && blob != nil {
		return fmt.Sprintf("%d bytes", blob.Size)
	}
	return string(text)
}

// unique says which key a job was submitted with.
func unique(u *engine.UniqueInfo) string {
	switch {
	case u == nil:
		return ""
	case u.Until != nil:
		return fmt.Sprintf("%s until %s", u.Key, show.Time(u.Until))
	}
	return fmt.Sprintf("%s while %s", u.Key, u.Scope)
}

// progress says how far a job is.
func progress(p *engine.ProgressInfo) string {
	if p == nil {
		return ""
	}
	text := strconv.FormatInt(p.Done, 10)
	if p.Total > 0 {
		text += fmt.Sprintf(" of %d (%d%%)", p.Total, 100*p.Done/p.Total)
	}
	if p.Note != "" {
		text += ": " + p.Note
	}
	return text
}

// unusual returns a class unless it is that of most jobs.
func unusual(class string) string {
	if class == string(engine.Normal) {
		return ""
	}
	return class
}

// failures says how many failures a job has. One with parts has none: they have.
func failures(j engine.JobInfo) string {
	if j.Children != nil {
		return ""
	}
	return fmt.Sprintf("%d of %d", j.Failures, j.MaxAttempts)
}

// jobFields returns what is known about one job, with its attempts.
func jobFields(j engine.JobInfo) []field {
	fields := []field{
		{"job", j.ID},
		{"kind", j.Kind},
		{"queue", j.Queue},
		{"state", j.State},
		{"class", unusual(j.Class)},
		{"parent", related(j)},
		{"pin", pinned(j.Pin)},
		{pieces(j.Children) + "s", partCount(j.Children)},
		{"rules", rules(j.Children)},
		{"selector", selector(j.Children)},
		{"failures", failures(j)},
		{"created", show.Time(j.Created)},
		{"progress", progress(j.Progress)},
		{"wait", waitsFor(j)},
		{"schedule", ticked(j)},
		{"due", show.Time(j.Due)},
		{"next attempt", tried(j)},
		{"start by", show.Time(j.StartBy)},
		{"deadline", show.Time(j.Deadline)},
		{"finished", show.Time(j.Finished)},
		{"unique", unique(j.Unique)},
		{"input", valueText(j.Input, j.InputBlob)},
		{"details", string(j.Details)},
		{"result", valueText(j.Result, j.ResultBlob)},
		{"error", show.Message(j.Error)},
	}
	for _, a := range j.Attempts {
		outcome := a.Outcome
		if outcome == "" {
			outcome = "running"
		}
		line := fmt.Sprintf("%s on %s", outcome, a.Node)
		if t := show.Took(a.Started, a.Ended); t != "" {
			line += " in " + t
		}
		if a.Error != nil {
			line += ": " + a.Error.Message
		}
		fields = append(fields, field{"attempt " + strconv.Itoa(a.Number), line})
	}
	return fields
}
