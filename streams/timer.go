package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/publish"
)

// Purpose is what a timer is for. It is one subject token.
type Purpose string

// The purposes. When it is due, a timer is either an item to be offered or an
// event that the owner applies to the record.
const (
	PurposeDue      Purpose = "due"      // an item: the job may run
	PurposeOutset   Purpose = "outset"   // an event: the job, which has children, may begin
	PurposeQueued   Purpose = "queued"   // an event: the job has waited too long for a worker
	PurposeDeadline Purpose = "deadline" // an event: the job has to end
	PurposeExpiry   Purpose = "expiry"   // an event: the job is kept no longer
)

// valid reports whether this build knows p.
func (p Purpose) valid() bool {
	return p == PurposeDue || p == PurposeOutset || p == PurposeQueued || p == PurposeDeadline || p == PurposeExpiry
}

// Timer is something that is due later. It is a hint: the record of its job
// decides what follows when it fires.
type Timer struct {
	Purpose Purpose
	// At is when it is due. It is stored to the millisecond, rounded up so that
	// nothing fires early.
	At time.Time
	// Queue and Local name the job.
	Queue, Local string
	// Item is what is offered: for [PurposeDue] only. Its record, revision, class
	// and node are stored, its names and due time are those of the timer.
	Item Item
	// Sequence names the stored message. A timer that is replaced gets another.
	Sequence uint64
}

// ErrNoTimer is returned for a timer that was deleted, cancelled or replaced.
var ErrNoTimer = errors.New("streams: no such timer")

const (
	timerType    = "timer"
	timerVersion = 1
)

// Timers is the stream of timers. It stores them and fires none. It is safe for
// concurrent use and holds no resources of its own.
type Timers struct {
	ns  Namespace
	pub *publish.Publisher
}

// NewTimers returns the timers of a namespace.
func NewTimers(ns Namespace, pub *publish.Publisher) (*Timers, error) {
	return &Timers{ns: ns, pub: pub}, nil
}

// Set stores a timer, in the place of one of the same purpose, time and job.
func (t *Timers) Set(ctx context.Context, timer Timer) error {
	msg, err := t.message(timer)
	if err == nil {
		_, err = t.pub.Publish(ctx, msg)
	}
	return timer.failed("set", err)
}

// SetAsync stores a timer and calls done once with the outcome, under the rules
// of [publish.Publisher.PublishAsync].
func (t *Timers) SetAsync(timer Timer, done func(error)) {
	msg, err := t.message(timer)
	if err != nil {
		done(timer.failed("set", err))
		return
	}
	t.pub.PublishAsync(msg, func(_ publish.Ack, err error) { done(timer.failed("set", err)) })
}

// Cancel deletes a timer by its purpose, time and job. If it is not there, or was
// replaced by one for another time, that is success. A timer whose Set is still on its
// way stays, and does no harm. It is deleted by its sequence, in half the time of a
// purge.
func (t *Timers) Cancel(ctx context.Context, timer Timer) error {
	sequence, err := t.find(ctx, timer)
	if err == nil && sequence > 0 {
		err = t.delete(ctx, sequence)
	}
	return timer.failed("cancel", err)
}

// Get returns the timer that is stored under a sequence. It returns [ErrNoTimer]
// if the leader has none.
func (t *Timers) Get(ctx context.Context, sequence uint64) (Timer, error) {
	msg, err := t.read(ctx, sequence)
	if err != nil {
		return Timer{}, fmt.Errorf("streams: get timer %d: %w", sequence, err)
	}
	timer, err := t.parse(msg)
	if err != nil {
		return Timer{}, fmt.Errorf("streams: get timer %d: %w", sequence, err)
	}
	timer.Sequence = sequence
	return timer, nil
}

// Delete deletes the timer that is stored under a sequence, and no other. If it
// is gone, that is success.
func (t *Timers) Delete(ctx context.Context, sequence uint64) error {
	if err := t.delete(ctx, sequence); err != nil {
		return fmt.Errorf("streams: delete timer %d: %w", sequence, err)
	}
	return nil
}

func (t *Timers) delete(ctx context.Context, sequence uint64) error {
	return t.pub.Erase(ctx, t.ns.TimerStream(), sequence)
}

// TimerAt returns when a message of the timer stream is due, from its headers.
// It reports false if they do not tell.
func TimerAt(h nats.Header) (time.Time, bool) {
	ms, err := strconv.ParseInt(h.Get(dueHeader), 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(ms).UTC(), true
}

// setDue writes what TimerAt reads.
func setDue(h nats.Header, at time.Time) {
	h[dueHeader] = []string{strconv.FormatInt(unixMilli(at), 10)}
}

// unixMilli returns at in milliseconds since 1970, rounded up.
func unixMilli(at time.Time) int64 {
	return at.Add(time.Millisecond - time.Nanosecond).UnixMilli()
}

func (t *Timers) subject(timer Timer) string {
	return t.ns.TimerSubject(timer.At, timer.Purpose, timer.Queue, timer.Local)
}

func (timer Timer) validate() error {
	switch {
	case !timer.Purpose.valid():
		return fmt.Errorf("purpose %q is none", timer.Purpose)
	case timer.At.UnixMilli() <= 0:
		return fmt.Errorf("due time %v is before 1970", timer.At)
	}
	return nil
}

// failed adds to err what was tried.
func (timer Timer) failed(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("streams: %s timer %s of %s.%s: %w", verb, timer.Purpose, timer.Queue, timer.Local, err)
}

// message returns timer as it is stored.
func (t *Timers) message(timer Timer) (*nats.Msg, error) {
	if err := timer.validate(); err != nil {
		return nil, err
	}
	msg := &nats.Msg{Subject: t.subject(timer), Header: Envelope{Type: timerType, Version: timerVersion}.Header()}
	setDue(msg.Header, timer.At)
	if timer.Purpose == PurposeDue {
		msg.Header[revisionHeader] = []string{strconv.FormatUint(timer.Item.Revision, 10)}
		setClass(msg.Header, timer.Item.Class)
		if timer.Item.Node != "" {
			msg.Header[nodeHeader] = []string{timer.Item.Node}
		}
		msg.Data = timer.Item.Record
	}
	return msg, nil
}

// read returns the stored message, from any replica that has it. One that does
// not have it may not have it yet, so then the leader is asked.
func (t *Timers) read(ctx context.Context, sequence uint64) (*nats.Msg, error) {
	stream := t.ns.TimerStream()
	msg, err := t.pub.Request(ctx, t.pub.API("DIRECT.GET."+stream), fmt.Appendf(nil, `{"seq":%d}`, sequence))
	if err != nil {
		return nil, err
	}
	if msg.Header.Get("Status") == "" {
		msg.Subject = msg.Header.Get("Nats-Subject")
		return msg, nil
	}
	m, err := t.pub.Message(ctx, stream, publish.Query{Sequence: sequence})
	switch {
	case publish.Gone(err):
		return nil, ErrNoTimer
	case err != nil:
		return nil, err
	}
	return &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}, nil
}

// parse reads a stored message.
func (t *Timers) parse(msg *nats.Msg) (Timer, error) {
	timer, err := t.parseSubject(msg.Subject)
	if err != nil {
		return Timer{}, err
	}
	if _, err := Decode(msg.Header, msg.Data, timerType, timerVersion); err != nil {
		return Timer{}, err
	}
	var ok bool
	if timer.At, ok = TimerAt(msg.Header); !ok {
		return Timer{}, fmt.Errorf("due time %q is no number", msg.Header.Get(dueHeader))
	}
	if timer.Purpose == PurposeDue {
		timer.Item = Item{Queue: timer.Queue, Local: timer.Local, Node: msg.Header.Get(nodeHeader), Class: msg.Header.Get(classHeader)}
		if err := timer.Item.fill(msg.Header, msg.Data); err != nil {
			return Timer{}, err
		}
	}
	return timer, nil
}

// parseSubject reads what the subject says of a timer. Nobody needs the minute
// that it is filed under.
func (t *Timers) parseSubject(subject string) (Timer, error) {
	tail, ok := strings.CutPrefix(subject, t.ns.subject("timer."))
	tokens := strings.Split(tail, ".")
	if !ok || len(tokens) != 4 {
		return Timer{}, fmt.Errorf("%q is no subject of a timer", subject)
	}
	timer := Timer{Purpose: Purpose(tokens[1]), Queue: tokens[2], Local: tokens[3]}
	if !timer.Purpose.valid() {
		return Timer{}, fmt.Errorf("this build knows no purpose %q: upgrade this process", timer.Purpose)
	}
	return timer, nil
}
