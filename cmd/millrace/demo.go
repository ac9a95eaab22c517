package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/examples/orders"
)

type demoCmd struct {
	Events string `help:"Events to publish in place of the example's, one a line: {\"subject\":…,\"data\":…,\"headers\":…}. A file, or - for standard input." placeholder:"FILE"`
}

const (
	// demoSlots is how many jobs the demo runs at once.
	demoSlots = 100
	// exampleSlots is the same for the example: few, so that some wait.
	exampleSlots = 4
	// examplePause is between two events of the example, so that one can watch.
	examplePause = 120 * time.Millisecond
	// demoPatience is how long nothing may move before the demo gives up.
	demoPatience = 30 * time.Second
	// demoLook is how often the demo looks whether all is done.
	demoLook = 50 * time.Millisecond
)

// Run runs NATS, the engine and a worker in this process and a temporary
// folder, publishes events and shows the jobs that they start.
func (c demoCmd) Run(ctx context.Context, e *env) error {
	plan, err := c.plan(e)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir, Logger: log})
	if err != nil {
		return err
	}
	defer srv.Close()
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		return err
	}
	defer nc.Close()
	eng, err := e.open(ctx, nc, engine.Options{Node: "demo", Logger: log})
	if err != nil {
		return err
	}
	defer eng.Close()
	worker, err := eng.Worker(engine.WorkerOptions{Slots: plan.slots}, orders.Handlers()...)
	if err != nil {
		return err
	}
	shop, err := srv.Connect(nats.Name("a shop, which knows nothing of jobs"))
	if err != nil {
		return err
	}
	defer shop.Close()
	if e.Output == "table" {
		fmt.Fprintf(e.stdout, "NATS %s, the engine and a worker with %d slots run in this process.\n%s start jobs from the events of a shop.\n\n",
			embedded.Version(), plan.slots, number(len(plan.triggers), "trigger"))
	}
	d := &demo{eng: eng, shop: shop, plan: plan, board: newBoard(e)}
	err = together(ctx, eng.Serve, worker.Run, d.watch, d.board.run, d.play)
	if d.took > 0 {
		return errors.Join(err, d.conclude(e))
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// plan reads the events.
func (c demoCmd) plan(e *env) (*plan, error) {
	if c.Events == "" {
		p, err := newPlan("examples/orders/events.jsonl", orders.Events)
		if err != nil {
			return nil, err
		}
		p.pause, p.slots = examplePause, exampleSlots
		return p, nil
	}
	arg := "@" + c.Events
	if c.Events == "-" {
		arg = "-"
	}
	data, err := e.text("--events", arg)
	if err != nil {
		return nil, err
	}
	return newPlan(c.Events, data)
}

// demo is one performance.
type demo struct {
	eng   *engine.Engine
	shop  *nats.Conn
	plan  *plan
	board *board

	began time.Time
	took  time.Duration    // 0 until all is over
	jobs  []engine.JobInfo // as they ended
	dead  []engine.DeadEvent
}

// watch puts every change of a job on the board.
func (d *demo) watch(ctx context.Context) error {
	err := d.eng.Watch(ctx, engine.ListOptions{}, d.board.put)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// play applies the triggers, publishes the events, and waits until all that
// follows from them has happened.
func (d *demo) play(ctx context.Context) error {
	for _, t := range d.plan.triggers {
		if _, err := d.eng.Apply(ctx, t); err != nil {
			return err
		}
	}
	d.began = time.Now()
	if err := d.publish(ctx); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	took := time.Since(d.began)
	most := len(d.plan.triggers)*len(d.plan.events) + 1 // one more than there should ever be
	var err error
	if d.dead, err = d.eng.DeadEvents(ctx, "", most); err != nil {
		return err
	}
	if d.jobs, err = d.eng.List(ctx, engine.ListOptions{Limit: most}); err != nil {
		return err
	}
	d.took = took
	return nil
}

func (d *demo) publish(ctx context.Context) error {
	for _, event := range d.plan.events {
		if err := d.shop.PublishMsg(event); err != nil {
			return fmt.Errorf("publish event on %s: %w", event.Subject, err)
		}
		d.board.sent()
		if d.plan.pause == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d.plan.pause):
		}
	}
	return send(ctx, d.shop)
}

// settle waits until every event has been handled and every job has ended.
func (d *demo) settle(ctx context.Context) error {
	look := time.NewTicker(demoLook)
	defer look.Stop()
	for {
		triggers, err := d.eng.Triggers(ctx)
		if err != nil {
			return err
		}
		var waiting uint64
		for _, t := range triggers {
			if t.Waiting != nil {
				waiting += *t.Waiting
			}
		}
		started, open, still := d.board.count()
		if waiting == 0 && open == 0 && started >= d.plan.jobs {
			return nil
		}
		if still > demoPatience {
			return fmt.Errorf("nothing has moved for %v: %d events are waiting, %d of %d jobs are not there, %d have not ended",
				demoPatience, waiting, d.plan.jobs-started, d.plan.jobs, open)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
		}
	}
}
