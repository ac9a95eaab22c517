package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type broadcastStartCmd struct {
	Kind        string            `arg:"" help:"Name of the handler, such as cache.flush."`
	Selector    map[string]string `mapsep:"," help:"Labels that a node must have. May be repeated. Default: every node that runs the kind." placeholder:"KEY=VALUE"`
	OnLost      string            `help:"What becomes of a part when its node dies: fail (it is lost) or wait (for a node of that ID, until the deadline). Default: fail." placeholder:"POLICY"`
	Done        string            `help:"When the broadcast succeeds: all, quorum (all have ended, more than half succeeded), any, or a number of parts. Default: all." placeholder:"GOAL"`
	MaxParallel *int              `help:"How many parts there are at a time. Once success is out of reach there are no more. Default: all." placeholder:"N"`
	Deadline    time.Duration     `help:"The broadcast fails if it has not ended that long after it may start. Default: never." placeholder:"DURATION"`
	ID          filled            `help:"Local ID: submitting it again attaches to the broadcast that is there." placeholder:"ID"`
	Input       string            `help:"JSON, @FILE, or - for standard input. Every part gets it." placeholder:"JSON"`
	Queue       string            `help:"Where the parts wait. Default: the kind up to its first dot." placeholder:"QUEUE"`
	Wait        bool              `help:"Wait until the broadcast has ended; the exit status is 1 if it did not succeed."`
	dueFlags
	retryFlags
}

// started is a broadcast as it is printed when it was submitted.
type started struct {
	engine.BroadcastInfo
	Created bool `json:"created"` // false if it was there
}

// Run submits a broadcast and prints it.
func (c broadcastStartCmd) Run(ctx context.Context, e *env) error {
	input, err := e.jsonText("--input", c.Input)
	opts, wrong := c.options()
	if err := errors.Join(checkNames(c.Kind, c.ID, c.Queue), wrong, err); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{})
	if err != nil {
		return err
	}
	defer shut()
	b, err := eng.Broadcast(ctx, c.Kind, input, opts)
	if err != nil {
		return err
	}
	return e.submittedParts(ctx, eng, sent{b.ID, b.Created, input, c.Wait})
}

// submittedParts prints a job with parts that was submitted, as it is or as it ended.
func (e *env) submittedParts(ctx context.Context, eng *engine.Engine, f sent) error {
	info, err := broadcast(ctx, e, eng, f.id)
	if err != nil {
		return err
	}
	if !f.created && e.Output == "table" {
		attached(e, info.JobInfo, f.input)
	}
	if !f.wait {
		return e.describeParts(info, started{info, f.created})
	}
	info, err = e.await(ctx, eng, f.id)
	if err != nil {
		return err
	}
	return errors.Join(e.describeParts(info, started{info, f.created}), info.Err())
}

// checkNames refuses names that no server needs to look at.
func checkNames(kind string, id filled, queue string) error {
	errs := []error{usage(name.CheckKind(kind)), checkQueue(queue)}
	if id != "" {
		errs = append(errs, usage(name.CheckLocal(string(id))))
	}
	return errors.Join(errs...)
}

// options returns what the flags say about the broadcast.
func (c broadcastStartCmd) options() (engine.BroadcastOptions, error) {
	goal, wrong := c.goal()
	at, late := c.at()
	err := errors.Join(someLabels("--selector", c.Selector), wrong, c.lost(), late, notNegative("--delay", c.Delay), notNegative("--deadline", c.Deadline), c.retryFlags.check())
	parallel := 0 // all
	if c.MaxParallel != nil {
		parallel = *c.MaxParallel
		if parallel < 1 {
			err = errors.Join(err, fmt.Errorf("--max-parallel is %d: use 1 or more, or leave it out", parallel))
		}
	}
	return engine.BroadcastOptions{
		ID: string(c.ID), Queue: c.Queue, Selector: c.Selector, OnLost: engine.OnLost(c.OnLost), Done: goal, Deadline: c.Deadline,
		MaxParallel: parallel, MaxAttempts: c.attempts(), Retry: c.wanted(), Delay: c.Delay, At: at,
	}, usage(err)
}

// goal reads when the broadcast succeeds.
func (c broadcastStartCmd) goal() (engine.Done, error) {
	if c.Done == "" || slices.Contains([]engine.Done{engine.DoneAll, engine.DoneQuorum, engine.DoneAny}, engine.Done(c.Done)) {
		return engine.Done(c.Done), nil
	}
	n, err := strconv.Atoi(c.Done)
	if err != nil || n < 1 {
		return "", fmt.Errorf("--done is %q: use all, quorum, any, or a number of parts from 1 on", c.Done)
	}
	return engine.DoneCount(n), nil
}

// lost checks what becomes of the parts of nodes that die.
func (c broadcastStartCmd) lost() error {
	switch engine.OnLost(c.OnLost) {
	case "", engine.LostFails:
		return nil
	case engine.LostWaits:
		if c.Deadline == 0 {
			return errors.New("--on-lost wait needs a --deadline: a node may never come back")
		}
		return nil
	default:
		return fmt.Errorf("--on-lost is %q: use fail or wait", c.OnLost)
	}
}
