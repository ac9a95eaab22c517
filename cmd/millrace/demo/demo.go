// Package demo shows events that start jobs: it publishes those of a shop, shows
// the jobs as they move, and holds what happened against what should have.
//
//	plan.go   what is published, and what should follow from it
//	board.go  the jobs as they move
//	end.go    how it ended
//
// Start reading at [Demo.Play].
package demo

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
)

const (
	// patience is how long nothing may move before the demo gives up.
	patience = 30 * time.Second
	// lookEvery is how often the demo looks whether all is done.
	lookEvery = 50 * time.Millisecond
)

// Options configures a [Demo].
type Options struct {
	// Out is what the demo shows itself on.
	Out io.Writer
	// Live draws the jobs as they move, if Out is a terminal.
	Live bool
}

// Demo is one performance. Make one with [New]. Its loops, [Demo.Play],
// [Demo.Watch] and [Demo.Draw], run at the same time, and the first ends it.
type Demo struct {
	eng   *engine.Engine
	shop  *nats.Conn
	plan  *Plan
	board *board

	began time.Time
	took  time.Duration    // 0 until all is over
	jobs  []engine.JobInfo // as they ended
	dead  []engine.DeadEvent
}

// New returns a demo of a plan, whose events the shop publishes. Somebody must
// serve and work meanwhile, with the handlers of the example.
func New(eng *engine.Engine, shop *nats.Conn, plan *Plan, opts Options) *Demo {
	return &Demo{eng: eng, shop: shop, plan: plan, board: newBoard(opts.Out, opts.Live)}
}

// Watch puts every change of a job on the board, until ctx ends.
func (d *Demo) Watch(ctx context.Context) error {
	err := d.eng.Watch(ctx, engine.ListOptions{}, d.board.put)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Draw draws the board until ctx ends, if there is a terminal to draw on.
func (d *Demo) Draw(ctx context.Context) error { return d.board.run(ctx) }

// Play applies the triggers, publishes the events, and waits until all that
// follows from them has happened.
func (d *Demo) Play(ctx context.Context) error {
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

func (d *Demo) publish(ctx context.Context) error {
	for _, event := range d.plan.events {
		if err := d.shop.PublishMsg(event); err != nil {
			return fmt.Errorf("publish event on %s: %w", event.Subject, err)
		}
		d.board.sent()
		if d.plan.Pause == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d.plan.Pause):
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.shop.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("publish events: %w", err)
	}
	return nil
}

// settle waits until every event has been handled and every job has ended.
func (d *Demo) settle(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
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
		if still > patience {
			return fmt.Errorf("nothing has moved for %v: %d events are waiting, %d of %d jobs are not there, %d have not ended",
				patience, waiting, d.plan.jobs-started, d.plan.jobs, open)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
		}
	}
}
