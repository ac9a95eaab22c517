package triggers

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

// ErrSkip is returned by the mapping of a trigger for an event that is to start
// no job.
var ErrSkip = errors.New("engine: the event starts no job")

// Source is where the events of a trigger come from: see [Subject] and
// [Stream].
type Source struct{ subject, stream, filter string }

// Subject returns the events on a subject, which may have wildcards: of the
// stream that has it, or else captured.
func Subject(subject string) Source { return Source{subject: subject} }

// Stream returns the events of a stream, on subjects that match filter; an empty
// filter means all of them.
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
