package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/engine"
)

// submitCmd is a submitter.
type submitCmd struct {
	Queue       string  `required:"" help:"Where the jobs wait."`
	Prefix      string  `required:"" help:"Their IDs are this and a number, from 0."`
	Count       int     `help:"How many. Default: until SIGTERM."`
	Rate        float64 `help:"How many a second. Default: as fast as possible."`
	Work        string  `default:"{}" help:"What their handlers are to do, in JSON."`
	MaxAttempts int     `help:"How many failures end a job. Default: as the worker says."`

	At           time.Time     `help:"When all of them are due, such as 2026-03-01T12:00:00Z. Default: at once."`
	Within       time.Duration `help:"How much later than --at each of them may be, by chance. Default: not at all."`
	Delay        time.Duration `help:"How long each of them waits at least. Default: not at all."`
	QueueTimeout time.Duration `help:"After how long a job fails that nobody has started. Default: never."`
	Deadline     time.Duration `help:"After how long a broadcast or a sharded job fails. Default: never."`

	Shards      int    `help:"Of how many shards each job is. Default: of none."`
	Broadcast   bool   `help:"Each job is a broadcast."`
	OnLost      string `help:"Of a broadcast: fail or wait. Default: the engine's."`
	Done        string `help:"Of a broadcast: all, quorum, any or a number. Default: the engine's."`
	MaxParallel int    `help:"Of a broadcast: how many parts at a time. Default: all."`
}

// Run submits jobs until all are certain, or until SIGTERM.
func (c submitCmd) Run(ctx context.Context, a *actor.Actor) error {
	load := actor.Load{
		Queue: c.Queue, Prefix: c.Prefix, Count: c.Count, Rate: c.Rate, MaxAttempts: c.MaxAttempts,
		At: c.At, Within: c.Within, Delay: c.Delay, QueueTimeout: c.QueueTimeout, Deadline: c.Deadline, Shards: c.Shards,
	}
	if c.Broadcast {
		load.Broadcast = &actor.Broadcast{OnLost: c.OnLost, Done: c.Done, MaxParallel: c.MaxParallel}
	}
	if err := json.Unmarshal([]byte(c.Work), &load.Work); err != nil {
		return fmt.Errorf("--work is %q: %w", c.Work, err)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	eng, shut, err := connect(ctx, engine.Options{})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return err
	}
	defer shut()
	if err := a.Submit(ctx, eng, load); err != nil {
		return err
	}
	slog.Info("submitted", "queue", c.Queue, "prefix", c.Prefix, "all", ctx.Err() == nil)
	return nil
}
