package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/internal/wait"
)

// LogLine is something that a handler said about its job, as its log keeps it.
type LogLine = logs.Line

// LogOptions says what to read of a job's log. The zero value of a field means
// its default.
type LogOptions struct {
	// Follow waits for more lines until the job has ended, over all its
	// attempts. By default what is there is read.
	Follow bool
	// Tail is how many lines to read of those that are there. Default: all.
	Tail int
}

// logMargin is how long before its creation a job's log begins: it tells lines of
// an earlier job with the same ID, which has been gone for longer, by their time,
// and clocks differ.
const logMargin = time.Minute

// Logs visits the log of a job: what its handlers said by [Current.Logger], and
// what programs wrote to their standard error, in every attempt and on every
// node, whether it is still there or not. The last 1,000 lines of a job are kept,
// for 14 days, or until the job is deleted.
//
// It ends with the first error of visit, which it returns. For a job that is not
// there, and of which no lines are left, it returns [ErrNotFound].
func (e *Engine) Logs(ctx context.Context, id string, opts LogOptions, visit func(LogLine) error) error {
	if err := checkID(id); err != nil {
		return err
	}
	if opts.Tail < 0 {
		return fmt.Errorf("engine: read log: tail is %d: use 1 or more, or 0 for all lines", opts.Tail)
	}
	read := logs.ReadOptions{Tail: opts.Tail}
	entry, missing := e.store.Get(ctx, id)
	switch {
	case missing == nil:
		read.Since = entry.Value.Created.Add(-logMargin)
	case !errors.Is(missing, ErrNotFound):
		return fmt.Errorf("engine: read log: %w", missing)
	}
	if missing == nil && opts.Follow {
		ended, stop := e.ended(ctx, id)
		defer stop()
		read.Ended = ended
	}
	lines := 0
	err := e.logs.Read(ctx, id, read, func(line LogLine) error {
		lines++
		return visit(line)
	})
	switch {
	case err != nil:
		return fmt.Errorf("engine: %w", err)
	case lines == 0 && missing != nil:
		return fmt.Errorf("engine: read log: %w", missing)
	}
	return nil
}

// ended returns a channel that is closed once a job has ended or is not there any
// more, and a function that frees what that takes.
func (e *Engine) ended(ctx context.Context, id string) (ended <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer close(over)
		for ctx.Err() == nil {
			if _, err := e.Wait(ctx, id); err == nil || errors.Is(err, ErrNotFound) {
				return
			}
			wait.For(ctx, time.Second)
		}
	})
	return over, func() { cancel(); waiting.Wait() }
}
