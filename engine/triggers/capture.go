package triggers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/streams"
)

// home is where the events of a source are.
type home struct {
	stream   string
	filter   string    // of the stream's subjects; empty means all
	captured bool      // the stream is the namespace's own
	created  time.Time // the stream; zero if it is still to be made
	last     uint64    // the last sequence of the stream
	subjects []string  // of the stream, if it is the namespace's own
}

// home finds the stream of a source, or says why there is none to read.
func (t *Triggers) home(ctx context.Context, js jetstream.JetStream, s Source) (home, error) {
	if s.subject == "" {
		return streamHome(ctx, js, s)
	}
	info, err := t.streamOf(ctx, js, s.subject)
	if err != nil {
		return home{}, err
	}
	if info != nil {
		h := home{stream: info.Config.Name, filter: s.subject, created: info.Created, last: info.State.LastSeq}
		return h, readable(info)
	}
	h := home{stream: t.ns.CaptureStream(), filter: s.subject, captured: true}
	stream, err := js.Stream(ctx, h.stream)
	switch {
	case err == nil:
		info := stream.CachedInfo()
		h.created, h.last, h.subjects = info.Created, info.State.LastSeq, info.Config.Subjects
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return home{}, fmt.Errorf("look for stream %s: %w", h.stream, err)
	}
	return h, nil
}

// streamHome finds a stream that the source names.
func streamHome(ctx context.Context, js jetstream.JetStream, s Source) (home, error) {
	stream, err := js.Stream(ctx, s.stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return home{}, fmt.Errorf("there is no stream %s: create it first, or name a subject in place of a stream", s.stream)
	case err != nil:
		return home{}, fmt.Errorf("look for stream %s: %w", s.stream, err)
	}
	info := stream.CachedInfo()
	subjects := info.Config.Subjects
	if s.filter != "" && len(subjects) > 0 && !overlapsAny(s.filter, subjects) {
		return home{}, fmt.Errorf("stream %s has no subject that %s takes in: its subjects are %s", s.stream, s.filter, strings.Join(subjects, ", "))
	}
	h := home{stream: s.stream, filter: s.filter, created: info.Created, last: info.State.LastSeq}
	return h, readable(info)
}

// readable refuses streams whose messages are not there to be read by all.
func readable(info *jetstream.StreamInfo) error {
	switch info.Config.Retention {
	case jetstream.WorkQueuePolicy:
		return fmt.Errorf("stream %s is a work queue, and a trigger would take its messages away from its workers: let the trigger read a stream with limits retention", info.Config.Name)
	case jetstream.InterestPolicy:
		return fmt.Errorf("stream %s has interest retention, and a trigger would decide how long its messages stay: let the trigger read a stream with limits retention", info.Config.Name)
	}
	return nil
}

// streamOf returns the stream that has all of a subject, other than the capture
// stream, or nil. A subject of which streams have only a part is refused: what
// they do not have cannot be captured beside them.
func (t *Triggers) streamOf(ctx context.Context, js jetstream.JetStream, subject string) (*jetstream.StreamInfo, error) {
	names := js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
	var all []string
	for name := range names.Name() {
		if name != t.ns.CaptureStream() {
			all = append(all, name)
		}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("look for streams that have subject %s: %w", subject, err)
	}
	for _, name := range all {
		stream, err := js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for stream %s: %w", name, err)
		}
		info := stream.CachedInfo()
		for _, has := range info.Config.Subjects {
			switch {
			case spec.Contains(has, subject):
				return info, nil
			case spec.Overlaps(has, subject):
				return nil, &partlyError{name, has, subject}
			}
		}
	}
	return nil, nil
}

// partlyError says that a stream has a part of a subject.
type partlyError struct{ stream, has, subject string }

func (p *partlyError) Error() string {
	return fmt.Sprintf("stream %s has %s, a part of subject %s, and the rest cannot be captured beside it: use a subject that the stream has as a whole, or name the stream and a filter",
		p.stream, p.has, p.subject)
}

func overlapsAny(subject string, subjects []string) bool {
	for _, s := range subjects {
		if spec.Overlaps(s, subject) {
			return true
		}
	}
	return false
}

// cover returns the subjects of the capture stream: the smallest cover of what
// all triggers need that have a cursor, other than the named one, of what those
// of other namespaces read there, and of more. The caller holds the bootstrap
// lease if it acts on them.
func (t *Triggers) cover(ctx context.Context, js jetstream.JetStream, except string, more ...string) ([]string, error) {
	cursors, err := t.allCursors(ctx, js)
	if err != nil {
		return nil, err
	}
	guests, err := t.guests(ctx, js)
	if err != nil {
		return nil, err
	}
	more = append(more, guests...)
	for trigger, c := range cursors {
		if trigger == except || c.Home != t.ns.CaptureStream() {
			continue
		}
		elsewhere, err := t.streamOf(ctx, js, c.Subject)
		var partly *partlyError
		switch {
		case err != nil && !errors.As(err, &partly):
			return nil, err
		case err != nil || elsewhere != nil: // its runner will find out
			t.log.WarnContext(ctx, "subject cannot be captured: a stream has it", "trigger", trigger, "subject", c.Subject)
		default:
			more = append(more, c.Subject)
		}
	}
	subjects, err := spec.Cover(more)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "spec: cover subjects: "))
	}
	return subjects, nil
}

// guests returns the subjects that triggers of other namespaces read from the
// capture stream of this one, since no other stream can have them. One that
// comes while subjects are taken away finds out that they are gone, and captures
// them in its own namespace.
func (t *Triggers) guests(ctx context.Context, js jetstream.JetStream) (subjects []string, _ error) {
	stream, err := js.Stream(ctx, t.ns.CaptureStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for stream %s: %w", t.ns.CaptureStream(), err)
	}
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		if t.ns.IsGuest(info.Config) && info.Config.FilterSubject != "" {
			subjects = append(subjects, info.Config.FilterSubject)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("look who reads stream %s: %w", t.ns.CaptureStream(), err)
	}
	return subjects, nil
}

// setCapture makes the capture stream have what all triggers with a cursor
// need. The caller holds the bootstrap lease.
func (t *Triggers) setCapture(ctx context.Context, js jetstream.JetStream) error {
	subjects, err := t.cover(ctx, js, "")
	if err == nil {
		_, err = streams.SetCapture(ctx, t.ns, t.pub, subjects)
	}
	return err
}
