package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Message is an event: a message on a subject that may start jobs.
type Message struct {
	Subject string
	Data    []byte
	Header  nats.Header
	// Time is when the stream stored the event, Sequence its place there.
	Time     time.Time
	Sequence uint64
}

// Decode reads the data of the event, which has to be JSON, into the value that
// v points to.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Data, v); err != nil {
		return fmt.Errorf("the event's data does not fit %T: %w", v, err)
	}
	return nil
}

// Skip is returned by the mapping of a [Trigger] for an event that is to start
// no job.
var Skip = errors.New("engine: the event starts no job")

// Source is where the events of a trigger come from: see [Subject] and
// [Stream].
type Source struct{ subject, stream, filter string }

// Subject returns the events on a subject, which may have wildcards. If some
// stream has the subject they come from there; otherwise they are captured, in
// a stream of the namespace, for seven days. While a subject is captured no other
// stream can have it. Nobody tells the publisher whether an event was captured:
// those that must not be lost are better published to a stream.
//
// A trigger sees what is published from the moment on at which its worker first
// ran, also what is published while no worker runs.
func Subject(subject string) Source { return Source{subject: subject} }

// Stream returns the events of a stream that exists, on subjects that match
// filter; an empty filter means all of them. The stream must not be a work queue
// or one with interest retention, since reading takes messages away from those.
//
// A trigger sees what is published from the moment on at which its worker first
// ran, also what is published while no worker runs.
func Stream(stream, filter string) Source { return Source{stream: stream, filter: filter} }

// String returns the source as people read it.
func (s Source) String() string {
	switch {
	case s.subject != "":
		return "subject " + s.subject
	case s.filter != "":
		return "stream " + s.stream + ", " + s.filter
	}
	return "stream " + s.stream
}
