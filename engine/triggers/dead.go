package triggers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// DeadEvent is an event that a trigger could not map to a job, or whose job
// could not be made. It is kept for 14 days.
type DeadEvent struct {
	Trigger string `json:"trigger"`
	Reason  string `json:"reason"`          // one line
	Stack   string `json:"stack,omitempty"` // of a mapping that panicked
	Subject string `json:"subject"`
	// Data is what the event carried. In JSON it is as it is if it is JSON, a
	// string if it is text, and a string in base64 otherwise.
	Data []byte `json:"-"`
	// Size is how many bytes the event carried. If that is more than Data has,
	// it was cut to fit the server's max_payload together with the reason.
	Size int `json:"size"`
	// Header is what the event had, or nil if that was too long to be kept.
	Header nats.Header `json:"headers,omitempty"`
	// Stream, Sequence and Time are where and when the event was stored.
	Stream   string    `json:"stream"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Died is when it was given up.
	Died time.Time `json:"died_at"`
}

// MarshalJSON writes the event with its data.
func (d DeadEvent) MarshalJSON() ([]byte, error) {
	type fields DeadEvent
	out := struct {
		fields
		Data any `json:"data"`
	}{fields(d), d.Data}
	switch {
	case len(d.Data) == 0:
		out.Data = nil
	case json.Valid(d.Data):
		out.Data = json.RawMessage(d.Data)
	case utf8.Valid(d.Data):
		out.Data = string(d.Data)
	}
	return json.Marshal(out)
}

// The envelope of a dead event. Its body is the event's own, and one header
// holds the rest: headers of the event might mean something to JetStream.
const (
	deadType    = "dead"
	deadVersion = 1
	headerEvent = "Mr-Event"
	// maxAbout keeps that header below what a stream takes, 64 KiB in all. If
	// it would be longer it is without the event's own headers.
	maxAbout = 56 << 10
)

// bury puts an event that cannot become a job on the list of the dead, and then
// acknowledges it. One that is there already stays as it is.
func (f *following) bury(msg jetstream.Msg, m Message, cause error) {
	d := DeadEvent{
		Trigger: f.rule.Name, Reason: clip(oneLine(cause.Error()), maxReason), Subject: m.Subject, Data: m.Data, Size: len(m.Data),
		Header: m.Header, Stream: f.place.stream, Sequence: m.Sequence, Time: m.Time.UTC(),
	}
	var crash *panicked
	if errors.As(cause, &crash) {
		d.Stack = clip(crash.stack, maxStack)
	}
	dead, err := d.message(f.ns.DeadSubject(f.rule.Name, f.place.created, m.Sequence), int(f.pub.Conn().MaxPayload()))
	if err != nil {
		f.log.Error("event cannot be put on the list of the dead", "trigger", f.rule.Name, "err", err)
		f.handBack(msg, handBackFor)
		f.done(msg)
		return
	}
	f.log.Warn("event starts no job", "trigger", f.rule.Name, "subject", m.Subject, "sequence", m.Sequence, "err", d.Reason)
	f.pub.PublishAsync(dead, func(_ publish.Ack, err error) {
		if err == nil || isThere(err) {
			f.finish(msg)
			return
		}
		f.log.Warn("event is tried again later", "trigger", f.rule.Name, "err", err)
		f.handBack(msg, handBackFor)
		f.done(msg)
	})
}

// isThere reports whether a write that expected an empty subject found
// something on it.
func isThere(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// message returns the event as it is stored under a subject where nothing is
// yet, cut to fit what the server takes.
func (d DeadEvent) message(subject string, limit int) (*nats.Msg, error) {
	about, err := json.Marshal(d.about())
	if err == nil && len(about) > min(limit/2, maxAbout) {
		d.Header = nil
		about, err = json.Marshal(d.about())
	}
	if err != nil {
		return nil, fmt.Errorf("engine: encode dead event: %w", err)
	}
	h := streams.Envelope{Type: deadType, Version: deadVersion}.Header()
	h[headerEvent] = []string{string(about)}
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	msg := &nats.Msg{Subject: subject, Header: h, Data: d.Data}
	if over := msg.Size() - len(subject) - limit; over > 0 {
		const rest = 64 // what the client counts differently
		msg.Data = d.Data[:max(0, len(d.Data)-over-rest)]
	}
	return msg, nil
}

// about is a dead event without its data.
func (d DeadEvent) about() any {
	type fields DeadEvent
	return fields(d)
}

// readDead reads a message of the list of the dead.
func readDead(msg jetstream.Msg) (DeadEvent, error) {
	if _, err := streams.Decode(msg.Headers(), msg.Data(), deadType, deadVersion); err != nil {
		return DeadEvent{}, err
	}
	type fields DeadEvent
	var d fields
	if err := json.Unmarshal([]byte(msg.Headers().Get(headerEvent)), &d); err != nil {
		return DeadEvent{}, fmt.Errorf("engine: decode dead event: %w", err)
	}
	d.Data = msg.Data()
	if meta, err := msg.Metadata(); err == nil {
		d.Died = meta.Timestamp.UTC()
	}
	return DeadEvent(d), nil
}

// Dead returns events that could not be mapped, the most recent first: of
// one trigger, or of all for an empty name. A limit of 0 means 100.
func (t *Triggers) Dead(ctx context.Context, trigger string, limit int) ([]DeadEvent, error) {
	if trigger == "" {
		trigger = "*"
	} else if err := name.Check("trigger", trigger); err != nil {
		return nil, fmt.Errorf("engine: list dead events: %w", err)
	}
	if limit <= 0 {
		limit = 100
	}
	list, err := t.deadEvents(ctx, t.ns.DeadFilter(trigger), limit)
	if err != nil {
		return nil, fmt.Errorf("engine: list dead events: %w", err)
	}
	slices.Reverse(list)
	return list[:min(limit, len(list))], nil
}

// deadEvents returns at least limit of the last dead events, in order, or all
// there are. It looks at the end of the stream, and at ever longer ends if there
// is not enough.
func (t *Triggers) deadEvents(ctx context.Context, filter string, limit int) ([]DeadEvent, error) {
	js, err := t.pub.JetStream()
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, t.ns.DeadStream())
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	for width := uint64(2 * limit); ; width *= 8 {
		from := max(state.FirstSeq, 1)
		if state.LastSeq >= width {
			from = max(from, state.LastSeq-width+1)
		}
		list, err := t.deadFrom(ctx, stream, filter, from)
		if err != nil || len(list) >= limit || from <= state.FirstSeq || from == 1 {
			return list, err
		}
	}
}

// deadFrom returns the dead events from a sequence on.
func (t *Triggers) deadFrom(ctx context.Context, stream jetstream.Stream, filter string, from uint64) ([]DeadEvent, error) {
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return nil, err
	}
	var list []DeadEvent
	for left := consumer.CachedInfo().NumPending; left > 0; {
		batch, err := consumer.Fetch(int(min(left, 500)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, err
		}
		got := uint64(0)
		for msg := range batch.Messages() {
			got++
			d, err := readDead(msg)
			if err != nil {
				t.log.WarnContext(ctx, "message among the dead events is passed over", "subject", msg.Subject(), "err", err)
				continue
			}
			list = append(list, d)
		}
		if batch.Error() != nil || got == 0 {
			return list, batch.Error() // the rest has expired meanwhile
		}
		left -= min(got, left)
	}
	return list, nil
}

// oneLine returns s without line breaks.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// How much a dead event keeps of an error, in bytes.
const (
	maxReason = 2 << 10
	maxStack  = 4 << 10
)

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
