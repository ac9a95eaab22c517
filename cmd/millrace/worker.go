package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/millrace/program"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type workerCmd struct {
	Exec         []string          `required:"" sep:"none" help:"Run jobs of a kind with a command line of the shell: input on standard input, result on standard output. May be repeated." placeholder:"KIND=COMMAND"`
	Slots        int               `help:"How many jobs at once." default:"10"`
	Node         string            `help:"Stable ID of this process. Default: the host's name and four random characters." placeholder:"ID"`
	Label        map[string]string `mapsep:"none" help:"What describes this node. May be repeated." placeholder:"KEY=VALUE"`
	Queue        []string          `sep:"none" help:"Queue to take jobs from. May be repeated. Default: those of the kinds." placeholder:"QUEUE"`
	PinnedOnly   bool              `help:"Leave the queues alone: take only what is pinned to this node, such as parts of broadcasts, and shards."`
	Timeout      time.Duration     `help:"How long one attempt may take. Default: for ever." placeholder:"DURATION"`
	Heartbeat    time.Duration     `help:"How long a command may go without a line ::heartbeat or ::progress on its standard error. Default: for ever." placeholder:"DURATION"`
	DrainTimeout time.Duration     `help:"How long commands may run on after the worker was asked to stop, before they get SIGTERM. Default: for ever." placeholder:"DURATION"`
	HTTP         string            `name:"http" help:"Address for /healthz, /readyz and /metrics. Default: none." placeholder:"ADDR"`
	Grace        time.Duration     `help:"How long a command may take to end after SIGTERM." default:"5s"`
	NoOwner      bool              `help:"Never be the owner, which fires timers, judges dead nodes and looks after jobs: a worker is, while nobody serves."`
	retryFlags
}

// storeGrace is how much longer than its commands a worker may take to end, to
// store what came of them.
const storeGrace = 5 * time.Second

// Run waits for NATS, and runs jobs until the process is asked to stop. Then it
// drains: it takes no more, and commands run on. Asked again, or after the drain timeout, it ends
// them, and asked for the third time it exits at once.
func (c workerCmd) Run(ctx context.Context, e *env) error {
	defs, err := c.definitions(e.programs)
	if err := errors.Join(err, c.check()); err != nil {
		return usage(err)
	}
	ln, err := listen("--http", c.HTTP)
	if err != nil {
		return err
	}
	registry, up := metrics(ln), new(readiness)
	return together(ctx, health(ln, up.ready, registry), func(ctx context.Context) error {
		eng, shut, err := e.stay(ctx, engine.Options{Node: c.Node, Labels: c.Label, Logger: e.logger(), Registerer: registerer(registry)})
		if err != nil {
			return unlessStopped(ctx, err)
		}
		defer shut()
		up.of(eng)
		worker, err := eng.Worker(engine.WorkerOptions{
			Slots: c.Slots, Queues: c.Queue, PinnedOnly: c.PinnedOnly, Grace: c.Grace + storeGrace, NoOwner: c.NoOwner,
		}, defs...)
		if err != nil {
			return err
		}
		return c.work(ctx, e, worker, address(ln))
	})
}

// work runs the worker until it has drained, or ctx ends.
func (c workerCmd) work(ctx context.Context, e *env, worker *engine.Worker, http string) error {
	log := e.logger()
	if err := e.programs.Watch("guard"); err != nil {
		return err
	}
	defer e.programs.Kill()
	defer context.AfterFunc(ctx, func() { log.Info("stopping: once more to stop at once", "grace", c.Grace) })()
	asked := e.interrupts.first()
	c.warn(log)
	log.Info("worker started", "server", e.where(), "namespace", e.Namespace, "slots", c.Slots, "http", http)
	return together(ctx, worker.Run, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-asked:
			c.drain(ctx, e, worker, log)
		}
		return nil
	})
}

// drain drains the worker until it has ended. The end of the drain timeout is
// like being asked to stop once more, which ends ctx; if somebody has asked by then
// it is nothing.
func (c workerCmd) drain(ctx context.Context, e *env, worker *engine.Worker, log *slog.Logger) {
	timeout := "none"
	if c.DrainTimeout > 0 {
		timeout = c.DrainTimeout.String()
	}
	log.Info("draining: once more to end the commands that run", "timeout", timeout)
	if c.DrainTimeout > 0 {
		late := time.AfterFunc(c.DrainTimeout, e.interrupts.hurry)
		defer late.Stop()
	}
	_ = worker.Drain(ctx) // it can only say why ctx has ended
}

func (c workerCmd) check() error {
	var errs []error
	if c.Node != "" {
		errs = append(errs, name.Check("node", c.Node))
	}
	for _, queue := range c.Queue {
		errs = append(errs, name.Check("queue", queue))
	}
	if c.Slots < 1 {
		errs = append(errs, fmt.Errorf("--slots is %d: use 1 or more", c.Slots))
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("--timeout is %v: use a positive one, or leave it out", c.Timeout))
	}
	if c.Heartbeat < 0 {
		errs = append(errs, fmt.Errorf("--heartbeat is %v: use a positive one, or leave it out", c.Heartbeat))
	}
	if c.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("--drain-timeout is %v: use a positive one, or leave it out", c.DrainTimeout))
	}
	if c.Grace <= 0 {
		errs = append(errs, fmt.Errorf("--grace is %v: use a positive one", c.Grace))
	}
	return errors.Join(append(errs, c.retryFlags.check())...)
}

// warn tells of kinds whose jobs wait, by default, where this worker does not
// look.
func (c workerCmd) warn(log *slog.Logger) {
	for _, arg := range c.Exec {
		kind, _, _ := strings.Cut(arg, "=")
		if queue := name.Queue(kind); len(c.Queue) > 0 && !slices.Contains(c.Queue, queue) {
			log.Warn("worker does not take from the queue of a kind", "kind", kind, "queue", queue)
		}
	}
}

// definitions returns a job for each --exec.
func (c workerCmd) definitions(programs *program.Running) ([]engine.Definition, error) {
	opts := engine.JobOptions{Timeout: c.Timeout, Heartbeat: c.Heartbeat, MaxAttempts: c.attempts(), Retry: c.policy()}
	var defs []engine.Definition
	var errs []error
	seen := map[string]bool{}
	for _, arg := range c.Exec {
		kind, line, ok := strings.Cut(arg, "=")
		switch {
		case !ok || kind == "" || strings.TrimSpace(line) == "":
			errs = append(errs, fmt.Errorf("--exec wants KIND=COMMAND, such as greet='echo hello', not %q", arg))
			continue
		case seen[kind]:
			errs = append(errs, fmt.Errorf("--exec gives two commands for kind %s: leave one out", kind))
			continue
		}
		seen[kind] = true
		if err := name.CheckKind(kind); err != nil {
			errs = append(errs, fmt.Errorf("--exec: %w", err))
		}
		p := program.Handler{Line: line, Grace: c.Grace, Running: programs}
		defs = append(defs, engine.NewJob[json.RawMessage, json.RawMessage](kind, p.Handle, opts))
	}
	return defs, errors.Join(errs...)
}
