package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type jobSubmitCmd struct {
	Kind  string `arg:"" help:"Name of the handler, such as email.send."`
	ID    string `help:"Local ID: submitting it again attaches to the job that is there." placeholder:"ID"`
	Input string `help:"JSON, @FILE, or - for standard input." placeholder:"JSON"`
	Queue string `help:"Where the job waits. Default: the kind up to its first dot." placeholder:"QUEUE"`
	Wait  bool   `help:"Wait until the job has ended; the exit status is 1 if it did not succeed."`
}

// submitted is a job as submit prints it.
type submitted struct {
	engine.JobInfo
	Created bool `json:"created"` // false if it was there
}

// Run submits a job and prints it.
func (c jobSubmitCmd) Run(ctx context.Context, e *env) error {
	input, err := e.jsonText("--input", c.Input)
	if err := errors.Join(c.check(), err); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{})
	if err != nil {
		return err
	}
	defer shut()
	job, err := eng.Submit(ctx, c.Kind, input, engine.SubmitOptions{ID: c.ID, Queue: c.Queue})
	if err != nil {
		return err
	}
	info, err := job.Get(ctx)
	if err != nil {
		return err
	}
	if !job.Created && e.Output == "table" {
		attached(e, input, info.Input)
	}
	if !c.Wait {
		return describe(e, submitted{info, job.Created}, jobFields(info))
	}
	info, err = eng.Wait(ctx, job.ID)
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("%w; the job stays: see millrace job watch %s", err, job.ID)
	}
	if err != nil {
		return err
	}
	return errors.Join(describe(e, submitted{info, job.Created}, jobFields(info)), info.Err())
}

// attached says that the job was there, and whether it differs.
func attached(e *env, given, there json.RawMessage) {
	other := ""
	if !sameJSON(given, there) {
		other = ", with another input"
	}
	fmt.Fprintf(e.stderr, "millrace: attached to a job that was there%s\n", other)
}

// sameJSON reports whether two texts mean the same. Nothing means null.
func sameJSON(a, b json.RawMessage) bool {
	var values [2]any
	for i, text := range []json.RawMessage{a, b} {
		if len(text) > 0 && json.Unmarshal(text, &values[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// check refuses names that no server needs to look at.
func (c jobSubmitCmd) check() error {
	errs := []error{usage(name.CheckKind(c.Kind))}
	if c.ID != "" {
		errs = append(errs, usage(name.CheckLocal(c.ID)))
	}
	if c.Queue != "" {
		errs = append(errs, usage(name.Check("queue", c.Queue)))
	}
	return errors.Join(errs...)
}
