package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/engine"
)

// markCmd is for a shell script that is a handler:
//
//	nonce=$(program mark start) || exit 1
//	sleep 0.2
//	program mark end "$nonce"
type markCmd struct {
	Start startCmd `cmd:"" help:"Write a start, and print its nonce."`
	End   endCmd   `cmd:"" help:"Write the end of the run with a nonce, and print the job's result."`
}

type startCmd struct{}

// Run writes the start of a handler.
func (startCmd) Run(a *actor.Actor) error {
	of, err := current()
	if err != nil {
		return err
	}
	nonce, err := a.Start(of, actor.Work{})
	if err != nil {
		return err
	}
	fmt.Println(nonce)
	return nil
}

type endCmd struct {
	Nonce   string `arg:"" help:"Of the start."`
	Outcome string `default:"succeeded" help:"How it ends."`
	Cause   string `help:"Why it was told to end, if it was."`
}

// Run writes the end of a handler.
func (c endCmd) Run(a *actor.Actor) error {
	of, err := current()
	if err != nil {
		return err
	}
	if err := a.End(of, c.Nonce, actor.End{Outcome: c.Outcome, Cause: c.Cause}); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(actor.Result{Nonce: c.Nonce})
}

// current is the attempt that the environment tells of.
func current() (engine.Current, error) {
	of := engine.Current{
		ID: os.Getenv("MILLRACE_JOB_ID"), Kind: os.Getenv("MILLRACE_KIND"),
		Node: os.Getenv("MILLRACE_NODE"), Namespace: os.Getenv("MILLRACE_NAMESPACE"),
		Parent: os.Getenv("MILLRACE_PARENT"), Part: os.Getenv("MILLRACE_PART"),
	}
	var err error
	if text := os.Getenv("MILLRACE_SHARDS"); text != "" {
		of.Shard = &engine.Shard{}
		if of.Shard.Total, err = strconv.Atoi(text); err != nil {
			return of, fmt.Errorf("read MILLRACE_SHARDS: %w", err)
		}
	}
	if of.Attempt, err = strconv.Atoi(os.Getenv("MILLRACE_ATTEMPT")); err != nil {
		return of, fmt.Errorf("read MILLRACE_ATTEMPT: %w: run this as a command of millrace worker", err)
	}
	if of.Fence, err = strconv.ParseUint(os.Getenv("MILLRACE_FENCE"), 10, 64); err != nil {
		return of, fmt.Errorf("read MILLRACE_FENCE: %w: run this as a command of millrace worker", err)
	}
	return of, nil
}
