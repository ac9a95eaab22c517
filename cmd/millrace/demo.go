package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/cmd/millrace/demo"
	"github.com/millrace/millrace/cmd/millrace/show"
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
)

// Run runs NATS, the engine and a worker in this process and a temporary
// folder, publishes events and shows the jobs that they start.
func (c demoCmd) Run(ctx context.Context, e *env) error {
	plan, slots, err := c.plan(e)
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
	worker, err := eng.Worker(engine.WorkerOptions{Slots: slots}, orders.Handlers()...)
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
			embedded.Version(), slots, show.Count(plan.Triggers(), "trigger"))
	}
	d := demo.New(eng, shop, plan, demo.Options{Out: e.stdout, Live: e.Output == "table"})
	err = together(ctx, eng.Serve, worker.Run, d.Watch, d.Draw, d.Play)
	if d.Over() {
		return errors.Join(err, conclude(e, d))
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// conclude shows how a demo ended, and returns what did not go as it should.
func conclude(e *env, d *demo.Demo) error {
	if e.Output == "json" {
		return errors.Join(list(e, d.Jobs(), jobColumns), d.Judge())
	}
	d.Conclude()
	err := d.Judge()
	if err == nil {
		fmt.Fprint(e.stdout, next)
	}
	return err
}

// next is what one may want to do after the demo.
const next = `
Everything ended as it should. Now with a NATS that stays:
  millrace dev
  millrace apply -f examples/orders/triggers.yaml
  millrace worker --exec order.fulfil=cat --exec 'mail.confirm=echo sent'
  millrace event send orders.created --data '{"id":"A-1","customer":"ann","total":9}'
  millrace job list
`

// plan reads the events, and returns what to do with them, and how many slots the
// worker has.
func (c demoCmd) plan(e *env) (plan *demo.Plan, slots int, err error) {
	file, lines, slots := "examples/orders/events.jsonl", orders.Events, exampleSlots
	if c.Events != "" {
		file, slots = c.Events, demoSlots
		arg := "@" + c.Events
		if c.Events == "-" {
			arg = "-"
		}
		if lines, err = e.text("--events", arg); err != nil {
			return nil, 0, err
		}
	}
	events, err := parseEvents(file, lines)
	if err != nil {
		return nil, 0, usage(err)
	}
	if plan, err = demo.NewPlan(events); err != nil {
		return nil, 0, err
	}
	if c.Events == "" {
		plan.Pause = examplePause
	}
	return plan, slots, nil
}

// parseEvents reads events, one JSON object a line; file is for messages.
func parseEvents(file string, lines []byte) ([]*nats.Msg, error) {
	var events []*nats.Msg
	var errs []error
	n := 0
	for line := range bytes.Lines(lines) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		msg, err := parseEvent(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		events = append(events, msg)
	}
	if len(errs) == 0 && len(events) == 0 {
		errs = append(errs, errors.New("no events: give at least one line"))
	}
	return events, errors.Join(errs...)
}

// parseEvent reads one line.
func parseEvent(line []byte) (*nats.Msg, error) {
	var event struct {
		Subject string            `json:"subject"`
		Data    json.RawMessage   `json:"data"`
		Headers map[string]string `json:"headers"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&event); err != nil {
		return nil, fmt.Errorf(`not an event: %w: write {"subject":…,"data":…,"headers":…}`, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not an event: there is more after it: write one a line")
	}
	if err := checkEventSubject(event.Subject); err != nil {
		return nil, err
	}
	msg := &nats.Msg{Subject: event.Subject, Data: event.Data}
	for key, value := range event.Headers {
		if msg.Header == nil {
			msg.Header = nats.Header{}
		}
		msg.Header.Set(key, value)
	}
	return msg, nil
}
