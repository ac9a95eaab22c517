package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine"
)

// retryFlags say how often a job is tried, and how long it waits in between.
type retryFlags struct {
	MaxAttempts *int            `help:"How many failures end a job. A submit overrules a worker. Default: 5." placeholder:"N"`
	Retry       []time.Duration `help:"How long to wait after the first failure, the second and so on; the last one repeats. A submit overrules a worker. Default: 1s, doubling up to 1h." placeholder:"DURATION"`
}

func (f retryFlags) check() error {
	var errs []error
	if f.MaxAttempts != nil && *f.MaxAttempts < 1 {
		errs = append(errs, fmt.Errorf("--max-attempts is %d: use 1 or more", *f.MaxAttempts))
	}
	for _, d := range f.Retry {
		errs = append(errs, notNegative("--retry", d))
	}
	return errors.Join(errs...)
}

// notNegative refuses durations below zero.
func notNegative(flag string, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("%s is %v: use a positive one, or leave it out", flag, d)
	}
	return nil
}

// attempts returns how many failures end a job, or 0 for the default.
func (f retryFlags) attempts() int {
	if f.MaxAttempts == nil {
		return 0
	}
	return *f.MaxAttempts
}

// policy returns the waits, whose zero value is the default.
func (f retryFlags) policy() engine.Retry { return engine.Retry{Delays: f.Retry} }

// wanted returns the waits that somebody asked for, or nil.
func (f retryFlags) wanted() *engine.Retry {
	if len(f.Retry) == 0 {
		return nil
	}
	policy := f.policy()
	return &policy
}
