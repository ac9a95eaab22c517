package triggers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/wait"
)

const (
	// settleFor is how long a runner tries to make the job of an event before it
	// hands the event back.
	settleFor = 20 * time.Second
	// handBackFor is for how long an event rests then.
	handBackFor = 5 * time.Second
)

// take handles one event: it maps it and submits the job, without waiting for
// the answer, and acknowledges the event last. One goroutine calls it.
func (f *following) take(msg jetstream.Msg) {
	if f.ctx.Err() != nil || f.window.Acquire(f.ctx, weight(msg)) != nil {
		f.handBack(msg, 0)
		return
	}
	f.open.Add(1)
	f.moved.Store(true)
	meta, err := msg.Metadata()
	if err != nil { // never from a server
		f.log.Error("delivery is none of JetStream's", "trigger", f.rule.Name, "err", err)
		f.done(msg)
		return
	}
	m := Message{Subject: msg.Subject(), Data: msg.Data(), Header: msg.Headers(), Time: meta.Timestamp, Sequence: meta.Sequence.Stream}
	job, err := f.job(m)
	switch {
	case errors.Is(err, ErrSkip):
		f.finish(msg)
	case err != nil:
		f.bury(msg, m, err)
	default:
		f.submit(msg, m, job)
	}
}

// done ends the handling of an event, whatever became of it.
func (f *following) done(msg jetstream.Msg) {
	f.window.Release(weight(msg))
	f.open.Done()
}

// weight is how much of the window an event takes: more if it is large.
func weight(msg jetstream.Msg) int64 {
	return min(1+int64(len(msg.Data())>>15), eventWindow)
}

// finish acknowledges an event. If that is lost the event comes again, and finds
// its job there.
func (f *following) finish(msg jetstream.Msg) {
	if err := msg.Ack(); err != nil {
		f.log.Debug("event comes again", "trigger", f.rule.Name, "err", err)
	}
	f.done(msg)
}

// handBack gives an event to other runners, after a while.
func (f *following) handBack(msg jetstream.Msg, after time.Duration) {
	if err := msg.NakWithDelay(after); err != nil {
		f.log.Debug("event comes again late", "trigger", f.rule.Name, "err", err)
	}
}

// job returns the job that an event starts.
func (f *following) job(m Message) (machine.Job, error) {
	out, err := f.rule.apply(m)
	if err != nil {
		return machine.Job{}, err
	}
	local := name.Token(out.ID)
	if out.ID == "" {
		local = eventID(f.rule.Name, f.place.created, m.Sequence)
	}
	return f.make(Job{
		Kind: f.rule.Kind, Local: local, Terms: f.rule.Terms,
		Input: out.Input, Trace: trace(m.Header),
	})
}

// eventID is the local ID of an event's own job. The time at which the stream
// was created tells sequences of a stream of the same name apart.
func eventID(trigger string, created time.Time, sequence uint64) string {
	return trigger + "=" + strconv.FormatInt(created.Unix(), 10) + "-" + strconv.FormatUint(sequence, 10)
}

// trace returns the W3C trace context of an event.
func trace(h nats.Header) map[string]string {
	var t map[string]string
	for key, values := range h {
		key := strings.ToLower(key)
		if (key == "traceparent" || key == "tracestate") && len(values) > 0 {
			if t == nil {
				t = map[string]string{}
			}
			t[key] = values[0]
		}
	}
	return t
}

// submit makes the job of an event. Where the outcome is not certain at once it
// is settled on the side.
func (f *following) submit(msg jetstream.Msg, m Message, job machine.Job) {
	if f.pub.Room(f.ctx) != nil {
		f.handBack(msg, 0)
		f.done(msg)
		return
	}
	f.store.SubmitAsync(job, func(_ store.Entry, err error) {
		if err == nil {
			f.finish(msg)
			return
		}
		go f.settle(msg, m, job)
	})
}

// settle makes the job of an event however long it takes, within reason.
func (f *following) settle(msg jetstream.Msg, m Message, job machine.Job) {
	ctx, cancel := context.WithTimeout(f.ctx, settleFor)
	defer cancel()
	for ctx.Err() == nil {
		entry, _, err := f.store.Submit(ctx, job)
		switch {
		case err != nil:
			f.log.DebugContext(ctx, "job of an event is not there yet", "job", job.ID, "err", err)
			wait.For(ctx, retryPause)
			continue
		case entry.Value.Kind != job.Kind:
			f.bury(msg, m, fmt.Errorf("there is a job %s of kind %s, not %s: add something to the trigger's id, or give it a queue of its own", job.ID, entry.Value.Kind, job.Kind))
		default:
			f.finish(msg)
		}
		return
	}
	after := handBackFor
	if f.ctx.Err() != nil {
		after = 0
	}
	f.log.WarnContext(ctx, "event is handed back", "trigger", f.rule.Name, "job", job.ID)
	f.handBack(msg, after)
	f.done(msg)
}
