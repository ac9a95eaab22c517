package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/engine"
)

// keepCmd is somebody who keeps schedules.
type keepCmd struct {
	Timetable string `required:"" help:"Which schedules, and what is done to them, in JSON."`
}

// Run applies schedules or pauses them, and edits them, until that is done or SIGTERM.
func (c keepCmd) Run(ctx context.Context, a *actor.Actor) error {
	var t actor.Timetable
	if err := json.Unmarshal([]byte(c.Timetable), &t); err != nil {
		return fmt.Errorf("--timetable is %q: %w", c.Timetable, err)
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
	return a.Keep(ctx, eng, t)
}
