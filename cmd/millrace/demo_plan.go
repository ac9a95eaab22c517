package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/examples/orders"
	"github.com/millrace/millrace/internal/name"
)

// plan is what a demo publishes, and what should follow from it: computed from
// the definitions alone, so that it can be held against what the engine did.
type plan struct {
	triggers []spec.Trigger
	events   []*nats.Msg
	pause    time.Duration // after each event
	slots    int           // of the worker

	jobs      int // that should be there in the end
	started   int // events that start jobs
	filtered  int // events that start nothing because of when
	repeated  int // events whose jobs are all there already
	untouched int // events on subjects without a trigger
	unmapped  int // events that start nothing because a trigger cannot map them
	dead      int // events that should be dead: one for each trigger that cannot map it
}

// newPlan reads events, one JSON object a line; file is for messages.
func newPlan(file string, lines []byte) (*plan, error) {
	p := &plan{slots: demoSlots}
	docs, err := spec.Parse("examples/orders/triggers.yaml", orders.Triggers)
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		p.triggers = append(p.triggers, doc.(spec.Trigger))
	}
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
		p.events = append(p.events, msg)
	}
	if len(errs) > 0 {
		return nil, usage(errors.Join(errs...))
	}
	if len(p.events) == 0 {
		return nil, usage(errors.New("no events: give at least one line"))
	}
	return p, p.foresee()
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

// foresee says what should follow from the events.
func (p *plan) foresee() error {
	mappings := make([]*spec.Mapping, len(p.triggers))
	for i, t := range p.triggers {
		var err error
		if mappings[i], err = spec.Compile(t); err != nil {
			return err
		}
	}
	known := map[string]bool{}
	for n, msg := range p.events {
		var fits, skipped, again, fresh, dead int
		for i, t := range p.triggers {
			if !spec.Contains(t.Subject, msg.Subject) {
				continue
			}
			fits++
			mapped, err := mappings[i].Map(spec.Event{Subject: msg.Subject, Data: msg.Data, Header: msg.Header, Time: time.Now(), Sequence: uint64(n + 1)})
			id := name.JobID(name.Queue(t.Job), name.Token(mapped.ID))
			switch {
			case err != nil:
				dead++
			case mapped.Skip:
				skipped++
			case known[id]:
				again++
			default:
				known[id] = mapped.ID != "" // the jobs of a trigger without id are all different
				fresh++
			}
		}
		p.jobs += fresh
		p.dead += dead
		switch {
		case fresh > 0:
			p.started++
		case dead > 0:
			p.unmapped++
		case fits == 0:
			p.untouched++
		case again > 0:
			p.repeated++
		case skipped > 0:
			p.filtered++
		}
	}
	return nil
}
