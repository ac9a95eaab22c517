package triggers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// place is where a runner reads the events of its trigger.
type place struct {
	consumer jetstream.Consumer
	stream   string
	created  time.Time // the stream
}

var (
	// errElsewhere says that there is something to do before a trigger can run.
	errElsewhere = errors.New("engine: the trigger is not in place")
	// errSuperseded says that another trigger has the name by now.
	errSuperseded = errors.New("another program runs a trigger of this name with another source or job")
	// errInGo says that workers bring a trigger of the name along.
	errInGo = errors.New("workers bring along a trigger of this name, made in Go: rename one of them, or, if no program has that one any more, delete it first")
	// errOutdated says that the definition has changed.
	errOutdated = errors.New("the trigger has changed or is gone")
)

// place returns the consumer of a trigger, after making whatever it needs. A
// trigger in Go that yields does not take the name from another one.
func (t *Triggers) place(ctx context.Context, r Rule, yields bool) (place, error) {
	js, err := t.pub.JetStream()
	if err != nil {
		return place{}, err
	}
	p, err := t.inPlace(ctx, js, r)
	if !errors.Is(err, errElsewhere) {
		return p, err
	}
	err = t.underBootstrap(ctx, func(ctx context.Context) error {
		if err := t.mayPlace(ctx, r, yields); err != nil {
			return err
		}
		p, err = t.putInPlace(ctx, js, r, false)
		return err
	})
	return p, err
}

// underBootstrap runs f under the bootstrap lease, which serialises what
// triggers do to streams.
func (t *Triggers) underBootstrap(ctx context.Context, f func(context.Context) error) error {
	return streams.UnderBootstrap(ctx, t.ns, t.pub, t.holder, f)
}

// mayPlace refuses to place a trigger that another one has replaced.
func (t *Triggers) mayPlace(ctx context.Context, r Rule, yields bool) error {
	stored, err := t.definitions().Get(ctx, definitionKey(r.Name))
	switch {
	case err != nil && !errors.Is(err, kv.ErrNotFound):
		return err
	case r.stored != 0 && stored.Revision != r.stored:
		return errOutdated
	case r.stored == 0 && err == nil:
		return errors.New("there is a stored trigger of this name: rename one of them, or delete the stored one")
	}
	c, err := t.cursors().Get(ctx, cursorKey(r.Name))
	switch {
	case err == nil && r.stored == 0 && yields && !c.Value.of(r):
		return errSuperseded
	case errors.Is(err, kv.ErrNotFound):
		return nil
	case err == nil && r.stored != 0 && c.Value.Go:
		return errInGo
	}
	return err
}

// inPlace returns the consumer of a trigger if all is as it should be, and
// errElsewhere if not.
func (t *Triggers) inPlace(ctx context.Context, js jetstream.JetStream, r Rule) (place, error) {
	c, err := t.cursors().Get(ctx, cursorKey(r.Name))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return place{}, errElsewhere
	case err != nil:
		return place{}, err
	case !c.Value.of(r):
		return place{}, errElsewhere
	}
	h, err := t.home(ctx, js, r.Source)
	if err != nil {
		return place{}, err
	}
	if c.Value.Home != h.stream || !c.Value.Created.Equal(h.created) || h.captured && !h.has(r.Source.subject) {
		return place{}, errElsewhere
	}
	want := t.ns.TriggerConsumer(r.Name, h.filter, c.Value.Next)
	consumer, err := js.Consumer(ctx, h.stream, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return place{}, errElsewhere
	case err != nil:
		return place{}, fmt.Errorf("look for consumer %s of stream %s: %w", want.Durable, h.stream, err)
	case consumer.CachedInfo().Config.FilterSubject != h.filter:
		return place{}, errElsewhere
	}
	return place{consumer, h.stream, h.created}, t.checkConsumer(r, consumer)
}

// has reports whether the capture stream takes in a subject.
func (h home) has(subject string) bool {
	for _, s := range h.subjects {
		if spec.Contains(s, subject) {
			return true
		}
	}
	return false
}

// checkConsumer refuses a consumer of the trigger's name that is another's.
func (t *Triggers) checkConsumer(r Rule, consumer jetstream.Consumer) error {
	info := consumer.CachedInfo()
	if t.ns.IsTriggerConsumer(r.Name, info.Config) {
		return nil
	}
	return fmt.Errorf("consumer %s of stream %s is not this trigger's but of something else: rename the trigger, or delete that consumer", info.Name, info.Stream)
}

// putInPlace captures the subject of a trigger if it must be, and makes its
// cursor and its consumer. A trigger that is new begins with what is published
// from now on; one that is fresh is taken for new whatever its cursor says. The
// caller holds the bootstrap lease.
func (t *Triggers) putInPlace(ctx context.Context, js jetstream.JetStream, r Rule, fresh bool) (place, error) {
	h, err := t.home(ctx, js, r.Source)
	if err != nil {
		return place{}, err
	}
	old, err := t.cursors().Get(ctx, cursorKey(r.Name))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return place{}, err
	}
	if h, err = t.capture(ctx, js, r, h); err != nil {
		return place{}, err
	}
	now := cursor{
		Subject: r.Source.subject, Stream: r.Source.stream, Filter: r.Source.filter,
		Go: r.stored == 0, Home: h.stream, Created: h.created.UTC(), Next: h.last + 1,
	}
	if now.Go {
		now.Job = r.Kind
	}
	if !fresh && old.Value.of(r) && old.Value.Home == h.stream {
		now.Next = 1 // the stream is a new one: all that it has was published since
		if old.Value.Created.Equal(h.created) {
			now.Next = old.Value.Next
		}
	}
	if fresh {
		if err := t.deleteConsumer(ctx, js, h.stream, r.Name); err != nil {
			return place{}, err
		}
	}
	consumer, err := t.consumer(ctx, js, r, h.filter, now)
	if err != nil {
		return place{}, err
	}
	if now != old.Value {
		if err := t.setCursor(ctx, r.Name, now, old.Revision); err != nil {
			return place{}, err
		}
	}
	return place{consumer, h.stream, h.created}, t.leave(ctx, js, r.Name, old.Value, now)
}

// capture makes the capture stream take in the subject of a trigger that is at
// home there.
func (t *Triggers) capture(ctx context.Context, js jetstream.JetStream, r Rule, h home) (home, error) {
	if !h.captured {
		return h, nil
	}
	subjects, err := t.cover(ctx, js, r.Name, r.Source.subject)
	if err != nil {
		return h, err
	}
	captured, err := streams.SetCapture(ctx, t.ns, t.pub, subjects)
	h.created, h.last = captured.Created, captured.Last
	return h, err
}

// leave ends what a trigger had at its old home, if it has moved.
func (t *Triggers) leave(ctx context.Context, js jetstream.JetStream, trigger string, old, now cursor) error {
	if old.Home == "" || old.Home == now.Home && old.Subject == now.Subject {
		return nil
	}
	if old.Home != now.Home {
		if err := t.deleteConsumer(ctx, js, old.Home, trigger); err != nil {
			return err
		}
	}
	if old.Home == t.ns.CaptureStream() {
		return t.setCapture(ctx, js)
	}
	return nil
}

func (t *Triggers) deleteConsumer(ctx context.Context, js jetstream.JetStream, stream, trigger string) error {
	durable := t.ns.TriggerConsumer(trigger, "", 0).Durable
	consumer, err := js.Consumer(ctx, stream, durable)
	if err == nil && t.ns.IsTriggerConsumer(trigger, consumer.CachedInfo().Config) {
		err = js.DeleteConsumer(ctx, stream, durable)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete consumer %s of stream %s: %w", durable, stream, err)
	}
	return nil
}

// consumer makes the consumer of a trigger, unless it is there.
func (t *Triggers) consumer(ctx context.Context, js jetstream.JetStream, r Rule, filter string, c cursor) (jetstream.Consumer, error) {
	config := t.ns.TriggerConsumer(r.Name, filter, c.Next)
	consumer, err := js.Consumer(ctx, c.Home, config.Durable)
	if err == nil {
		if err := t.checkConsumer(r, consumer); err != nil {
			return nil, err
		}
		if consumer.CachedInfo().Config.FilterSubject == filter {
			return consumer, nil
		}
		err = t.deleteConsumer(ctx, js, c.Home, r.Name)
	}
	if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = js.CreateConsumer(ctx, c.Home, config)
	}
	if err != nil {
		return nil, fmt.Errorf("create consumer %s of stream %s: %w", config.Durable, c.Home, err)
	}
	return consumer, nil
}
