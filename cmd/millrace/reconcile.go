package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/store"
)

type reconcileCmd struct {
	Timeout time.Duration `help:"How long to wait for the owner to look at all jobs." default:"5m"`
}

// Run lets the owner look at all jobs, and prints what it made up for.
func (c reconcileCmd) Run(ctx context.Context, e *env) error {
	if c.Timeout <= 0 {
		return usage(fmt.Errorf("--timeout is %v: use a positive one, or leave it out", c.Timeout))
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	waiting, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	healed, err := eng.Reconcile(waiting)
	switch {
	case err == nil:
		return describe(e, healed, healedFields(healed))
	case ctx.Err() != nil:
		return fmt.Errorf("%w; the owner goes on", context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the owner of namespace %s has not answered within %v: give it longer by --timeout, or ask again", e.Namespace, c.Timeout)
	}
	return err
}

// sum adds up what was healed.
func sum(healed map[store.Lack]int) (n int) {
	for _, k := range healed {
		n += k
	}
	return n
}

// healedFields returns what was made up for, leaving out what was not.
func healedFields(h engine.Healed) []field {
	fields := []field{{"open jobs", strconv.Itoa(h.Looked)}}
	for _, f := range []struct {
		name string
		n    int
	}{
		{"items offered again", h.Healed[store.LackItem]},
		{"timers set again", h.Healed[store.LackTimer]},
		{"expiries set", h.Healed[store.LackExpiry]},
		{"removals completed", h.Healed[store.LackRemoval]},
		{"consumers made again", h.Consumers},
		{"looked at again soon", h.Waiting},
	} {
		if f.n > 0 {
			fields = append(fields, field{f.name, strconv.Itoa(f.n)})
		}
	}
	if len(h.Healed) == 0 && h.Consumers == 0 {
		fields = append(fields, field{"healed", "nothing"})
	}
	if total := sum(h.Total) - sum(h.Healed); total > 0 {
		fields = append(fields, field{"healed before", fmt.Sprintf("%d, by itself", total)})
	}
	return fields
}
