package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/millrace/millrace/engine"
)

type jobSubmitCmd struct {
	Kind  string `arg:"" help:"Name of the handler, such as email.send."`
	ID    filled `help:"Local ID: submitting it again attaches to the job that is there." placeholder:"ID"`
	Input string `help:"JSON, @FILE, or - for standard input." placeholder:"JSON"`
	Queue string `help:"Where the job waits. Default: the kind up to its first dot." placeholder:"QUEUE"`
	Class string `help:"Priority among what waits for a slot: high, normal or low. Default: normal." placeholder:"CLASS"`
	Wait  bool   `help:"Wait until the job has ended; the exit status is 1 if it did not succeed."`
	timeFlags
	retryFlags
	uniqueFlags
	placeFlags
	shardFlags
}

// filled is a flag that makes no sense when it is empty, as it would be if the variable
// of a script is not set: the job would be another one each time.
type filled string

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *filled) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("it is empty: leave it out if that is meant")
	}
	*f = filled(text)
	return nil
}

// uniqueFlags make a job the only one that holds a key.
type uniqueFlags struct {
	Unique       filled        `help:"Key that one job of the kind holds at a time: submitting it again attaches to that job." placeholder:"KEY"`
	UniqueScope  string        `help:"For how long the job holds the key: pending (until it starts), active (until it has ended), or period. Default: active." placeholder:"SCOPE"`
	UniquePeriod time.Duration `help:"How long the key is held, whatever becomes of the job." placeholder:"DURATION"`
}

// key returns what the flags say.
func (f uniqueFlags) key() engine.Unique {
	return engine.Unique{Key: string(f.Unique), Scope: engine.Scope(f.UniqueScope), Period: f.UniquePeriod}
}

// check refuses flags that do not go together.
func (f uniqueFlags) check(id filled) error {
	switch {
	case f.Unique == "" && (f.UniqueScope != "" || f.UniquePeriod != 0):
		return errors.New("there is --unique-scope or --unique-period without --unique: say which key")
	case f.Unique != "" && id != "":
		return errors.New("there is both --id and --unique, which makes an ID: use one of them")
	}
	return nil
}

// dueFlags say when a job may start.
type dueFlags struct {
	Delay time.Duration `help:"How long the job waits before it may start." placeholder:"DURATION"`
	At    string        `help:"When it may start, such as 2026-12-24T18:00:00+01:00." placeholder:"TIME"`
}

// timeFlags say when a job may start, and when it is too late.
type timeFlags struct {
	dueFlags
	QueueTimeout time.Duration `help:"The job fails if it has not started that long after it may. Default: never." placeholder:"DURATION"`
	Deadline     time.Duration `help:"The job fails if it has not ended that long after it may start. Default: never." placeholder:"DURATION"`
}

// submitted is a job as submit prints it.
type submitted struct {
	engine.JobInfo
	Created bool `json:"created"` // false if it was there
}

// Run submits a job and prints it.
func (c jobSubmitCmd) Run(ctx context.Context, e *env) error {
	input, err := e.jsonText("--input", c.Input)
	opts, wrong := c.options()
	if err := errors.Join(c.check(), wrong, err); err != nil {
		return err
	}
	if c.used() {
		return c.submitShards(ctx, e, input, opts)
	}
	eng, shut, err := e.connect(ctx, engine.Options{})
	if err != nil {
		return err
	}
	defer shut()
	job, err := eng.Submit(ctx, c.Kind, input, opts)
	if err != nil {
		return err
	}
	return e.submittedJob(ctx, eng, sent{job.ID, job.Created, input, c.Wait})
}

// sent is a job that was submitted.
type sent struct {
	id      string
	created bool
	input   json.RawMessage
	wait    bool // until it has ended
}

// submittedJob prints a job that was submitted, as it is or as it ended.
func (e *env) submittedJob(ctx context.Context, eng *engine.Engine, s sent) error {
	info, err := eng.Get(ctx, s.id)
	if err != nil {
		return err
	}
	if !s.created && e.Output == "table" {
		attached(e, info, s.input)
	}
	if !s.wait {
		return describe(e, submitted{info, s.created}, jobFields(info))
	}
	info, err = eng.Wait(ctx, s.id)
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("%w; the job stays: see millrace job watch %s", err, s.id)
	}
	if err != nil {
		return err
	}
	return errors.Join(describe(e, submitted{info, s.created}, jobFields(info)), info.Err())
}

// attached says that the job was there, and whether its input differs from what was
// given.
func attached(e *env, there engine.JobInfo, given json.RawMessage) {
	what, other := "job", ""
	if there.Children != nil && !there.Children.Shards {
		what = "broadcast"
	}
	if !sameJSON(given, there.Input) {
		other = ", with another input"
	}
	fmt.Fprintf(e.stderr, "millrace: attached to a %s that was there%s\n", what, other)
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
	errs := []error{checkNames(c.Kind, c.ID, c.Queue)}
	if c.Class != "" && !slices.Contains([]engine.Class{engine.High, engine.Normal, engine.Low}, engine.Class(c.Class)) {
		errs = append(errs, usage(fmt.Errorf("--class is %q: use high, normal or low", c.Class)))
	}
	return errors.Join(errs...)
}

// options returns what the flags say about the job.
func (c jobSubmitCmd) options() (engine.SubmitOptions, error) {
	at, err := c.at()
	err = errors.Join(
		notNegative("--delay", c.Delay), err,
		notNegative("--queue-timeout", c.QueueTimeout), notNegative("--deadline", c.Deadline), c.retryFlags.check(), c.uniqueFlags.check(c.ID),
		c.checkPlace(), c.checkShards(),
	)
	opts := engine.SubmitOptions{
		ID: string(c.ID), Queue: c.Queue, Class: engine.Class(c.Class), MaxAttempts: c.attempts(),
		Delay: c.Delay, At: at, QueueTimeout: c.QueueTimeout, Deadline: c.Deadline, Unique: c.key(), Retry: c.wanted(), Place: c.place(),
	}
	return opts, usage(err)
}

// at reads the time at which a job may start.
func (f dueFlags) at() (time.Time, error) {
	if f.At == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, f.At)
	switch {
	case err != nil:
		return at, fmt.Errorf("--at %q is no time: write it like 2026-12-24T18:00:00Z", f.At)
	case f.Delay != 0:
		return at, errors.New("there is both --delay and --at: use one of them")
	}
	return at, nil
}
