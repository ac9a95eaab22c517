package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/streams"
)

type doctorCmd struct {
	Role  string `help:"What this user has to be able to do: ${enum}. What it lacks for that is wrong." enum:"client,worker,serve,any" default:"any"`
	Queue string `help:"With --role: the queue for whose jobs." placeholder:"NAME"`
	All   bool   `help:"Print also what is fine."`
}

// Run prints what is wrong with the installation, and what to do about it.
func (c doctorCmd) Run(ctx context.Context, e *env) error {
	if c.Queue != "" {
		if c.Role == "any" {
			return usage(errors.New("--queue says for whose jobs a --role is wanted: add it, or leave it out"))
		}
		if err := name.Check("queue", c.Queue); err != nil {
			return usage(err)
		}
	}
	found, err := c.examine(ctx, e)
	if err != nil {
		return err
	}
	shown, count := []doctor.Finding{}, map[doctor.Level]int{}
	for _, f := range found {
		count[f.Level]++
		if c.All || f.Level != doctor.Fine {
			shown = append(shown, f)
		}
	}
	if err := printFindings(e, shown); err != nil {
		return err
	}
	switch {
	case count[doctor.Wrong] > 0:
		return fmt.Errorf("%s", amount(count[doctor.Wrong], "thing is wrong", "things are wrong"))
	case len(shown) == 0 && e.Output != "json":
		fmt.Fprintf(e.stdout, "nothing is wrong: %d checks\n", len(found))
	}
	return nil
}

// examine looks at the installation. That no server answers is a finding too.
func (c doctorCmd) examine(ctx context.Context, e *env) ([]doctor.Finding, error) {
	nc, err := e.dial(quiet())
	if m := (misused{}); errors.As(err, &m) {
		return nil, err
	}
	if err != nil {
		text, remedy := err.Error(), ""
		if i := strings.LastIndex(text, ": "); i > 0 { // all errors of dial end with what to do
			text, remedy = text[:i], text[i+2:]
		}
		return []doctor.Finding{{Level: doctor.Wrong, Check: "connection", Text: text, Remedy: remedy}}, nil
	}
	defer nc.Close()
	opts := doctor.Options{Namespace: streams.Namespace(e.Namespace), Domain: e.JSDomain, Queue: c.Queue}
	if c.Role != "any" {
		opts.Role = c.Role
	}
	return doctor.Examine(ctx, nc, opts)
}

// printFindings prints each finding on a line.
func printFindings(e *env, found []doctor.Finding) error {
	width := 0
	for _, f := range found {
		width = max(width, len(f.Check))
		if e.Output == "json" {
			if err := e.json(f); err != nil {
				return err
			}
		}
	}
	if e.Output == "json" {
		return nil
	}
	for _, f := range found {
		fmt.Fprintf(e.stdout, "%-7s  %-*s  %s\n", f.Level, width, f.Check, show.Plain(f.String(), widestField))
	}
	return nil
}

// amount says how many things are something.
func amount(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
