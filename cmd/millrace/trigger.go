package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type triggerCmd struct {
	List   triggerListCmd   `cmd:"" help:"List triggers."`
	Get    triggerGetCmd    `cmd:"" help:"Print a trigger."`
	Delete triggerDeleteCmd `cmd:"" help:"Delete a trigger. The jobs that it started stay."`
}

type triggerListCmd struct{}

var triggerColumns = []column[engine.TriggerInfo]{
	{"trigger", func(t engine.TriggerInfo) string { return t.Name }},
	{"declared", func(t engine.TriggerInfo) string { return t.Declared }},
	{"events", events},
	{"job", func(t engine.TriggerInfo) string { return t.Job }},
	{"waiting", waiting},
	{"problem", func(t engine.TriggerInfo) string { return t.Problem }},
}

// events says where the events of a trigger come from.
func events(t engine.TriggerInfo) string {
	switch {
	case t.Subject != "":
		return t.Subject
	case t.Filter != "":
		return t.Filter + " of stream " + t.Stream
	}
	return "stream " + t.Stream
}

func waiting(t engine.TriggerInfo) string {
	if t.Waiting == nil {
		return ""
	}
	return strconv.FormatUint(*t.Waiting, 10)
}

// Run prints all triggers.
func (triggerListCmd) Run(ctx context.Context, e *env) error {
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	triggers, err := eng.Triggers(ctx)
	if err != nil {
		return err
	}
	return list(e, triggers, triggerColumns)
}

type triggerGetCmd struct {
	Name string `arg:"" help:"Name of the trigger."`
}

// Run prints a trigger.
func (c triggerGetCmd) Run(ctx context.Context, e *env) error {
	if err := usage(name.Check("trigger", c.Name)); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	t, err := eng.Trigger(ctx, c.Name)
	if err != nil {
		return c.explain(e, err)
	}
	fields := []field{{"trigger", t.Name}, {"declared", t.Declared}, {"events", events(t)}, {"job", t.Job}}
	if d := t.Definition; d != nil {
		fields = append(fields, field{"queue", d.Queue}, field{"when", d.When}, field{"id", d.ID}, field{"input", d.Input})
	}
	return describe(e, t, append(fields,
		field{"problem", t.Problem}, field{"read from", t.Source}, field{"waiting", waiting(t)}, field{"changed", show.Time(t.Changed)}))
}

func (c triggerGetCmd) explain(e *env, err error) error {
	if errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("trigger %s is not in namespace %s: see millrace trigger list", c.Name, e.Namespace)
	}
	return err
}

type triggerDeleteCmd triggerGetCmd

// Run deletes a trigger.
func (c triggerDeleteCmd) Run(ctx context.Context, e *env) error {
	if err := usage(name.Check("trigger", c.Name)); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	if err := eng.DeleteTrigger(ctx, c.Name); err != nil {
		return triggerGetCmd(c).explain(e, err)
	}
	return describe(e, engine.Applied{Key: "trigger." + c.Name, Action: "deleted"}, []field{{"trigger " + c.Name, "deleted"}})
}
