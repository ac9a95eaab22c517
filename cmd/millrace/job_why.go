package main

import (
	"context"
	"errors"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

type jobWhyCmd struct {
	ID string `arg:"" help:"ID of the job: queue, dot, local ID."`
}

// Run prints why a job is where it is.
func (c jobWhyCmd) Run(ctx context.Context, e *env) error {
	if err := checkJobID(c.ID); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	r, err := eng.Why(ctx, c.ID)
	if errors.Is(err, engine.ErrNotFound) {
		return notFound(e, c.ID)
	}
	if err != nil {
		return err
	}
	return describe(e, r, []field{
		{"job", r.ID},
		{"kind", r.Kind},
		{"queue", r.Queue},
		{"state", r.State},
		{"code", r.Code},
		{"reason", r.Text},
		{"node", deref(r.Node)},
		{"due", show.Time(r.Due)},
	})
}
