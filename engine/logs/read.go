package logs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/streams"
)

// ReadOptions says what to read. The zero value of a field means its default.
type ReadOptions struct {
	// Since leaves out what was stored before, by the server's clock: the lines
	// of an earlier job with the same ID. Default: nothing.
	Since time.Time
	// Tail is how many lines to read of those that are there. Default: all.
	Tail int
	// Ended is closed when no more lines are to come. Until then Read waits for
	// more. Default: it reads what is there.
	Ended <-chan struct{}
}

// Read visits the lines of a job, in the order in which they were stored, which
// is that in which each attempt said them. It ends when all have been visited, or
// with the first error of visit, which it returns. While NATS is away it waits.
// If ctx ends before, that is an error.
//
// A line that this build cannot read is visited as one that says so.
func (l *Log) Read(ctx context.Context, id string, opts ReadOptions, visit func(Line) error) error {
	r := &reader{Log: l, id: id, since: opts.Since, visit: visit, seen: map[uint64]*numbers{}}
	err := r.read(ctx, opts)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("logs: read the log of job %s: %w", id, err)
	}
	return nil
}

// reader is what one call of Read knows.
type reader struct {
	*Log
	id      string
	since   time.Time
	visit   func(Line) error
	visited uint64              // the last sequence
	seen    map[uint64]*numbers // by fence
}

func (r *reader) read(ctx context.Context, opts ReadOptions) error {
	if opts.Tail > 0 {
		if err := r.tail(ctx, opts.Tail); err != nil || opts.Ended == nil {
			return err
		}
	}
	if opts.Ended != nil {
		if err := r.live(ctx, opts.Ended); err != nil {
			return err
		}
	}
	return r.rest(ctx)
}

// tail visits the last n lines of those that are there.
func (r *reader) tail(ctx context.Context, n int) error {
	visit := r.visit
	defer func() { r.visit = visit }()
	var last []Line
	r.visit = func(line Line) error {
		if len(last) == n {
			last = last[1:]
		}
		last = append(last, line)
		return nil
	}
	if err := r.rest(ctx); err != nil {
		return err
	}
	for _, line := range last {
		if err := visit(line); err != nil {
			return err
		}
	}
	return nil
}

// live visits what is there and what comes, until ended is closed.
func (r *reader) live(ctx context.Context, ended <-chan struct{}) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		select {
		case <-ended:
			stop()
		case <-ctx.Done():
		}
	}()
	err := r.follow(ctx, 0)
	stop()
	<-waited
	return err
}

// rest visits what is there now and was not visited yet.
func (r *reader) rest(ctx context.Context) error {
	for ctx.Err() == nil {
		last, err := streams.LastLine(ctx, r.pub, r.ns, r.id)
		switch {
		case err == nil && last <= r.visited:
			return nil
		case err == nil:
			return r.follow(ctx, last)
		case !passing(err):
			return err
		}
		wait.For(ctx, again)
	}
	return nil
}

// follow visits what was not visited yet, up to a sequence or, if that is 0,
// until ctx ends.
func (r *reader) follow(ctx context.Context, until uint64) error {
	opts := follow.Options{
		Stream: r.ns.LogStream(), Filters: []string{r.ns.LogSubject(r.id)},
		From: r.visited + 1, Until: until, Logger: r.log,
	}
	return follow.Run(ctx, r.pub, opts, r.take)
}

// take visits one message, unless it is there twice.
func (r *reader) take(m follow.Message) error {
	r.visited = m.Sequence
	if m.Time.Before(r.since) {
		return nil
	}
	s, err := decode(m.Header, m.Data)
	if err != nil {
		return r.visit(Line{Time: m.Time.UTC(), Level: slog.LevelWarn, Text: "this line cannot be read: " + err.Error()})
	}
	if r.seen[s.Fence] == nil {
		r.seen[s.Fence] = &numbers{}
	}
	if !r.seen[s.Fence].add(s.Number) {
		return nil
	}
	return r.visit(s.Line)
}

// numbers are the numbers of an attempt's lines that were seen. A writer has one
// window of lines in flight, so what is further back than that was seen.
type numbers struct {
	highest uint64
	behind  uint64 // bit i: highest - i was seen
}

// add reports whether a number is new.
func (n *numbers) add(number uint64) bool {
	if number > n.highest {
		n.behind = n.behind<<min(number-n.highest, window) | 1
		n.highest = number
		return true
	}
	back := n.highest - number
	if back >= window || n.behind&(1<<back) != 0 {
		return false
	}
	n.behind |= 1 << back
	return true
}

// window has to fit the bits of numbers.
const _ = uint(64 - window)
