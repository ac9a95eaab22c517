package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

type jobLogsCmd struct {
	ID     string `arg:"" help:"ID of the job: queue, dot, local ID."`
	Follow bool   `short:"f" help:"Go on with what is said from now on, until the job has ended."`
	Tail   int    `help:"Only the last lines of those that are there. Default: all, of which a job keeps 1,000." placeholder:"N"`
}

// Run prints the log of a job.
func (c jobLogsCmd) Run(ctx context.Context, e *env) error {
	if err := checkJobID(c.ID); err != nil {
		return err
	}
	if c.Tail < 0 {
		return usage(fmt.Errorf("--tail is %d: use 1 or more, or leave it out", c.Tail))
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	lines := 0
	err = eng.Logs(ctx, c.ID, engine.LogOptions{Follow: c.Follow, Tail: c.Tail}, func(l engine.LogLine) error {
		lines++
		return e.line(l)
	})
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return nil
	case errors.Is(err, engine.ErrNotFound):
		return notFound(e, c.ID)
	case err == nil && lines == 0:
		c.elsewhere(ctx, e, eng)
	}
	return err
}

// elsewhere says where the log is of a job that has none because its parts have it.
func (c jobLogsCmd) elsewhere(ctx context.Context, e *env, eng *engine.Engine) {
	if job, err := eng.Get(ctx, c.ID); err == nil && job.Children != nil {
		fmt.Fprintf(e.stderr, "millrace: the parts of %s have the logs: see millrace job list --parent %s\n", c.ID, c.ID)
	}
}

// widestLine is how many characters of a line are shown, which is all.
const widestLine = 16 << 10

// line prints a line of a job's log.
func (e *env) line(l engine.LogLine) error {
	if e.Output == "json" {
		return e.json(l)
	}
	text := fmt.Sprintf("%s  %-5s  %s", l.Time.Local().Format("2006-01-02 15:04:05.000"), l.Level, show.Plain(l.Text, widestLine))
	if attrs := attributes(l.Attrs); attrs != "" {
		text += "  " + show.Plain(attrs, widestLine)
	}
	if l.Cut {
		text += "  (cut)"
	}
	if l.Attempt > 1 {
		text += fmt.Sprintf("  attempt=%d", l.Attempt)
	}
	_, err := fmt.Fprintln(e.stdout, text)
	return err
}

// attributes writes the members of a JSON object in their order, as key=value.
func attributes(object json.RawMessage) string {
	dec := json.NewDecoder(bytes.NewReader(object))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return ""
	}
	var list []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			break
		}
		list = append(list, fmt.Sprintf("%v=%s", key, shown(value)))
	}
	return strings.Join(list, " ")
}

// shown returns a JSON value as people read it: a string without quotes, if
// nobody could take it for something else.
func shown(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) != nil {
		return string(value)
	}
	if quoted := strconv.Quote(s); s == "" || strings.ContainsAny(s, " =\"") || quoted != `"`+s+`"` {
		return quoted
	}
	return s
}
