package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type eventCmd struct {
	Send eventSendCmd `cmd:"" help:"Publish an event on a subject."`
	Dead eventDeadCmd `cmd:"" help:"Look at events that no trigger could map."`
}

type eventSendCmd struct {
	Subject string `arg:"" help:"Subject to publish on, such as orders.created."`
	Data    string `help:"JSON, @FILE, or - for standard input." placeholder:"JSON"`
}

// Run publishes an event, as any NATS client does.
func (c eventSendCmd) Run(ctx context.Context, e *env) error {
	data, err := e.jsonText("--data", c.Data)
	if err := errors.Join(checkEventSubject(c.Subject), err); err != nil {
		return err
	}
	nc, err := e.dial(quiet())
	if err != nil {
		return err
	}
	defer nc.Close()
	return send(ctx, nc, &nats.Msg{Subject: c.Subject, Data: data})
}

// send publishes messages and waits until the server has them. It returns what
// the server said against one of them.
func send(ctx context.Context, nc *nats.Conn, msgs ...*nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for _, msg := range msgs {
		err := nc.PublishMsg(msg)
		if errors.Is(err, nats.ErrMaxPayload) {
			return fmt.Errorf("send event on %s: it has %d bytes, the server takes up to %d: put the data elsewhere and send a reference, or raise max_payload",
				msg.Subject, msg.Size(), nc.MaxPayload())
		}
		if err != nil {
			return fmt.Errorf("send event on %s: %w", msg.Subject, err)
		}
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("send events: %w: whether they arrived is not known", err)
	}
	if err := nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return fmt.Errorf("send event: %w", denied(err))
	}
	return nil
}

// checkEventSubject refuses what nobody can publish on, or should not.
func checkEventSubject(subject string) error {
	if strings.ContainsAny(subject, "*>") {
		return usage(fmt.Errorf("subject %q has a wildcard: an event has one subject", subject))
	}
	return usage(name.CheckSubject(subject))
}

type eventDeadCmd struct {
	List eventDeadListCmd `cmd:"" help:"List events that could not be mapped, with the reason, the latest first."`
}

type eventDeadListCmd struct {
	Trigger string `help:"Only events of this trigger." placeholder:"NAME"`
	Limit   int    `help:"How many events at most." default:"100"`
}

var deadColumns = []column[engine.DeadEvent]{
	{"died", func(d engine.DeadEvent) string { return show.Time(&d.Died) }},
	{"trigger", func(d engine.DeadEvent) string { return d.Trigger }},
	{"subject", func(d engine.DeadEvent) string { return d.Subject }},
	{"sequence", func(d engine.DeadEvent) string { return strconv.FormatUint(d.Sequence, 10) }},
	{"reason", func(d engine.DeadEvent) string { return d.Reason }},
}

// Run prints events that could not be mapped.
func (c eventDeadListCmd) Run(ctx context.Context, e *env) error {
	if c.Limit < 1 {
		return usage(fmt.Errorf("--limit is %d: use 1 or more", c.Limit))
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	dead, err := eng.DeadEvents(ctx, c.Trigger, c.Limit)
	if err != nil {
		return err
	}
	return list(e, dead, deadColumns)
}
