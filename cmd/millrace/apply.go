package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

type applyCmd struct {
	File   []string `short:"f" sep:"none" help:"File with definitions in YAML or JSON, or - for standard input. May be repeated." placeholder:"FILE"`
	Files  []string `arg:"" optional:"" name:"file" help:"More such files."`
	DryRun bool     `help:"Print what would change, and change nothing."`
	revisionFlag
}

// Run stores the definitions, or none if one of them is wrong.
func (c applyCmd) Run(ctx context.Context, e *env) error {
	files := append(c.File, c.Files...)
	if len(files) == 0 {
		return usage(errors.New("no file: give one by -f, or - for standard input: see millrace apply --help"))
	}
	docs, err := e.parse(files)
	if err == nil {
		err = c.expect(docs)
	}
	if err != nil {
		return usage(err)
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: c.DryRun})
	if err != nil {
		return err
	}
	defer shut()
	for _, doc := range docs {
		applied, err := eng.Apply(ctx, doc, engine.ApplyOptions{DryRun: c.DryRun})
		if err != nil {
			return err
		}
		if err := c.print(e, applied); err != nil {
			return err
		}
		if s, ok := doc.(engine.Schedule); ok && applied.Action != engine.Unchanged {
			e.warnIfOver(s)
		}
	}
	return nil
}

// warnIfOver says that a schedule never ticks, as one does with the wrong year.
func (e *env) warnIfOver(s engine.Schedule) {
	ticks, err := engine.NextTicksOf(s, time.Now(), 1)
	if err == nil && len(ticks.Ticks) == 0 && e.Output == "table" {
		fmt.Fprintf(e.stderr, "millrace: schedule %s has no tick to come: see its times, start and end\n", s.Name)
	}
}

// expect has the one schedule in the files replace a certain revision.
func (c applyCmd) expect(docs []spec.Document) error {
	if c.Revision == 0 {
		return nil
	}
	if len(docs) == 1 {
		if s, ok := docs[0].(spec.Schedule); ok {
			s.Revision = c.Revision
			docs[0] = s
			return nil
		}
	}
	return errors.New("--revision is that of a schedule: give one file with one document of that kind")
}

// parse reads the definitions in files. It reports what is wrong with all of
// them at once.
func (e *env) parse(files []string) ([]spec.Document, error) {
	var docs []spec.Document
	var errs []error
	seen := map[string]string{}
	for _, file := range files {
		data, err := e.read(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found, err := spec.Parse(file, data)
		errs = append(errs, err)
		for _, doc := range found {
			if other, twice := seen[doc.Key()]; twice {
				errs = append(errs, fmt.Errorf("%s: %s is defined in %s already: rename one, or remove it",
					file, strings.Replace(doc.Key(), ".", " ", 1), other))
			}
			seen[doc.Key()] = file
		}
		docs = append(docs, found...)
	}
	return docs, errors.Join(errs...)
}

func (e *env) read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(e.stdin)
	}
	return os.ReadFile(file)
}

// print prints what was done, or would be.
func (c applyCmd) print(e *env, a engine.Applied) error {
	if e.Output == "json" {
		return e.json(a)
	}
	would := ""
	if c.DryRun && a.Action != engine.Unchanged {
		would = "would be "
	}
	fmt.Fprintf(e.stdout, "%s %s%s\n", strings.Replace(a.Key, ".", " ", 1), would, a.Action)
	if a.Action != engine.Changed {
		return nil
	}
	for _, change := range a.Changes {
		fmt.Fprintf(e.stdout, "  %s: %s → %s\n", change.Field, orNone(change.Old), orNone(change.New))
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return show.Plain(s, widestField)
}
