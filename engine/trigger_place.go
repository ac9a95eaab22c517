package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// cursor is where a trigger stands: its key in the cursor bucket. The consumer
// of the trigger follows from it and is made again if it is lost; so does what
// has to be captured.
type cursor struct {
	// The source.
	Subject string `json:"subject,omitempty"`
	Stream  string `json:"stream,omitempty"`
	Filter  string `json:"filter,omitempty"`
	// Go is set for a trigger that workers bring along, of a kind of jobs.
	Go  bool   `json:"go,omitempty"`
	Job string `json:"job,omitempty"`
	// Home is the stream that has the events, Created when it was made.
	Home    string    `json:"home"`
	Created time.Time `json:"created"`
	// Next is the first sequence that is not known to be handled.
	Next uint64 `json:"next"`
}

func cursorKey(trigger string) string { return "trigger." + trigger }

func (e *Engine) cursors() *kv.Bucket[cursor] {
	return kv.Open(e.pub, e.ns.Bucket(streams.Cursor), kv.JSON[cursor](), kv.Options{Logger: e.log})
}

// allCursors reads the cursors of all triggers from the leader.
func (e *Engine) allCursors(ctx context.Context, js jetstream.JetStream) (map[string]cursor, error) {
	stream, err := js.Stream(ctx, "KV_"+e.ns.Bucket(streams.Cursor))
	if err != nil {
		return nil, fmt.Errorf("look for the cursors: %w", err)
	}
	prefix := "$KV." + e.ns.Bucket(streams.Cursor) + "." + cursorKey("")
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("list the cursors: %w", err)
	}
	all := map[string]cursor{}
	for subject := range info.State.Subjects {
		trigger := strings.TrimPrefix(subject, prefix)
		c, err := e.cursors().Get(ctx, cursorKey(trigger))
		switch {
		case err == nil:
			all[trigger] = c.Value
		case !errors.Is(err, kv.ErrNotFound):
			return nil, err
		}
	}
	return all, nil
}

// of reports whether the cursor is that of r, and not of another trigger of
// the same name.
func (c cursor) of(r rule) bool {
	return c.source() == r.source && c.Go == (r.stored == 0) && (!c.Go || c.Job == r.kind)
}

func (c cursor) source() Source { return Source{c.Subject, c.Stream, c.Filter} }

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
func (e *Engine) place(ctx context.Context, r rule, yields bool) (place, error) {
	js, err := jetstream.New(e.pub.Conn())
	if err != nil {
		return place{}, err
	}
	p, err := e.inPlace(ctx, js, r)
	if !errors.Is(err, errElsewhere) {
		return p, err
	}
	err = e.underBootstrap(ctx, func(ctx context.Context) error {
		if err := e.mayPlace(ctx, r, yields); err != nil {
			return err
		}
		p, err = e.putInPlace(ctx, js, r, false)
		return err
	})
	return p, err
}

// underBootstrap runs f under the bootstrap lease, which serialises what
// triggers do to streams.
func (e *Engine) underBootstrap(ctx context.Context, f func(context.Context) error) error {
	holder := e.opts.Node
	if holder == "" {
		host, _ := os.Hostname() // is for people to read
		holder = host + "#" + strconv.Itoa(os.Getpid())
	}
	return streams.UnderBootstrap(ctx, e.ns, e.pub, holder, f)
}

// mayPlace refuses to place a trigger that another one has replaced.
func (e *Engine) mayPlace(ctx context.Context, r rule, yields bool) error {
	stored, err := e.definitions().Get(ctx, definitionKey(r.name))
	switch {
	case err != nil && !errors.Is(err, kv.ErrNotFound):
		return err
	case r.stored != 0 && stored.Revision != r.stored:
		return errOutdated
	case r.stored == 0 && err == nil:
		return errors.New("there is a stored trigger of this name: rename one of them, or delete the stored one")
	}
	c, err := e.cursors().Get(ctx, cursorKey(r.name))
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
func (e *Engine) inPlace(ctx context.Context, js jetstream.JetStream, r rule) (place, error) {
	c, err := e.cursors().Get(ctx, cursorKey(r.name))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return place{}, errElsewhere
	case err != nil:
		return place{}, err
	case !c.Value.of(r):
		return place{}, errElsewhere
	}
	h, err := e.home(ctx, js, r.source)
	if err != nil {
		return place{}, err
	}
	if c.Value.Home != h.stream || !c.Value.Created.Equal(h.created) || h.captured && !h.has(r.source.subject) {
		return place{}, errElsewhere
	}
	want := e.ns.TriggerConsumer(r.name, h.filter, c.Value.Next)
	consumer, err := js.Consumer(ctx, h.stream, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return place{}, errElsewhere
	case err != nil:
		return place{}, fmt.Errorf("look for consumer %s of stream %s: %w", want.Durable, h.stream, err)
	case consumer.CachedInfo().Config.FilterSubject != h.filter:
		return place{}, errElsewhere
	}
	return place{consumer, h.stream, h.created}, e.checkConsumer(r, consumer)
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
func (e *Engine) checkConsumer(r rule, consumer jetstream.Consumer) error {
	info := consumer.CachedInfo()
	if e.ns.IsTriggerConsumer(r.name, info.Config) {
		return nil
	}
	return fmt.Errorf("consumer %s of stream %s is not this trigger's but of something else: rename the trigger, or delete that consumer", info.Name, info.Stream)
}

// putInPlace captures the subject of a trigger if it must be, and makes its
// cursor and its consumer. A trigger that is new begins with what is published
// from now on; one that is fresh is taken for new whatever its cursor says. The
// caller holds the bootstrap lease.
func (e *Engine) putInPlace(ctx context.Context, js jetstream.JetStream, r rule, fresh bool) (place, error) {
	h, err := e.home(ctx, js, r.source)
	if err != nil {
		return place{}, err
	}
	old, err := e.cursors().Get(ctx, cursorKey(r.name))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return place{}, err
	}
	if h, err = e.capture(ctx, js, r, h); err != nil {
		return place{}, err
	}
	now := cursor{
		Subject: r.source.subject, Stream: r.source.stream, Filter: r.source.filter,
		Go: r.stored == 0, Home: h.stream, Created: h.created.UTC(), Next: h.last + 1,
	}
	if now.Go {
		now.Job = r.kind
	}
	if !fresh && old.Value.of(r) && old.Value.Home == h.stream {
		now.Next = 1 // the stream is a new one: all that it has was published since
		if old.Value.Created.Equal(h.created) {
			now.Next = old.Value.Next
		}
	}
	if fresh {
		if err := e.deleteConsumer(ctx, js, h.stream, r.name); err != nil {
			return place{}, err
		}
	}
	consumer, err := e.consumer(ctx, js, r, h.filter, now)
	if err != nil {
		return place{}, err
	}
	if now != old.Value {
		if err := e.setCursor(ctx, r.name, now, old.Revision); err != nil {
			return place{}, err
		}
	}
	return place{consumer, h.stream, h.created}, e.leave(ctx, js, r.name, old.Value, now)
}

// capture makes the capture stream take in the subject of a trigger that is at
// home there.
func (e *Engine) capture(ctx context.Context, js jetstream.JetStream, r rule, h home) (home, error) {
	if !h.captured {
		return h, nil
	}
	subjects, err := e.cover(ctx, js, r.name, r.source.subject)
	if err != nil {
		return h, err
	}
	captured, err := streams.SetCapture(ctx, e.ns, e.pub, subjects)
	h.created, h.last = captured.Created, captured.Last
	return h, err
}

// setCursor writes a cursor in the place of the revision that was read, 0 for
// none.
func (e *Engine) setCursor(ctx context.Context, trigger string, c cursor, revision uint64) error {
	if revision == 0 {
		_, err := e.cursors().Create(ctx, cursorKey(trigger), c)
		return err
	}
	_, err := e.cursors().Update(ctx, cursorKey(trigger), c, revision)
	return err
}

// leave ends what a trigger had at its old home, if it has moved.
func (e *Engine) leave(ctx context.Context, js jetstream.JetStream, trigger string, old, now cursor) error {
	if old.Home == "" || old.Home == now.Home && old.Subject == now.Subject {
		return nil
	}
	if old.Home != now.Home {
		if err := e.deleteConsumer(ctx, js, old.Home, trigger); err != nil {
			return err
		}
	}
	if old.Home == e.ns.CaptureStream() {
		return e.setCapture(ctx, js)
	}
	return nil
}

func (e *Engine) deleteConsumer(ctx context.Context, js jetstream.JetStream, stream, trigger string) error {
	durable := e.ns.TriggerConsumer(trigger, "", 0).Durable
	consumer, err := js.Consumer(ctx, stream, durable)
	if err == nil && e.ns.IsTriggerConsumer(trigger, consumer.CachedInfo().Config) {
		err = js.DeleteConsumer(ctx, stream, durable)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete consumer %s of stream %s: %w", durable, stream, err)
	}
	return nil
}

// consumer makes the consumer of a trigger, unless it is there.
func (e *Engine) consumer(ctx context.Context, js jetstream.JetStream, r rule, filter string, c cursor) (jetstream.Consumer, error) {
	config := e.ns.TriggerConsumer(r.name, filter, c.Next)
	consumer, err := js.Consumer(ctx, c.Home, config.Durable)
	if err == nil {
		if err := e.checkConsumer(r, consumer); err != nil {
			return nil, err
		}
		if consumer.CachedInfo().Config.FilterSubject == filter {
			return consumer, nil
		}
		err = e.deleteConsumer(ctx, js, c.Home, r.name)
	}
	if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = js.CreateConsumer(ctx, c.Home, config)
	}
	if err != nil {
		return nil, fmt.Errorf("create consumer %s of stream %s: %w", config.Durable, c.Home, err)
	}
	return consumer, nil
}
