package spec

import (
	"strings"

	"github.com/millrace/millrace/internal/name"
)

// Trigger says which events start which jobs. Its events come from Subject, which
// is captured, or from Stream, which exists already.
type Trigger struct {
	// Name is one token. It is required.
	Name string `json:"name"`

	// Subject is where the events are published; it may have wildcards.
	Subject string `json:"subject,omitempty"`

	// Stream is the stream that holds the events.
	Stream string `json:"stream,omitempty"`

	// Filter narrows the subjects of Stream. Default: all of them.
	Filter string `json:"filter,omitempty"`

	// When is an expression: events for which it is false start nothing.
	// Default: every event starts a job.
	When string `json:"when,omitempty"`

	// Job is the kind of the jobs. It is required.
	Job string `json:"job"`

	// Queue is where the jobs wait. Default: the queue of the kind.
	Queue string `json:"queue,omitempty"`

	// ID is an expression for the local ID of the job, so that events with the
	// same one start one job. Default: every event starts its own.
	ID string `json:"id,omitempty"`

	// Input is an expression for the input of the job. Default: event.data.
	Input string `json:"input,omitempty"`
}

// Kind returns "Trigger".
func (Trigger) Kind() string { return "Trigger" }

// Key returns the key of the trigger in the config bucket.
func (t Trigger) Key() string { return "trigger." + t.Name }

// MarshalJSON writes the trigger as a document that [Parse] reads.
func (t Trigger) MarshalJSON() ([]byte, error) {
	type fields Trigger
	return encode(struct {
		Kind string `json:"kind"`
		fields
	}{t.Kind(), fields(t)}), nil
}

// Validate reports everything that is wrong with a trigger that did not come
// from [Parse], as [Problems].
func (t Trigger) Validate() error {
	_, faults := t.compile()
	return unplaced("trigger "+quote(t.Name), faults)
}

func readTrigger(r *reader) Document {
	var t Trigger
	r.read(t.fields())
	_, faults := t.compile()
	r.report(faults)
	return t
}

func (t Trigger) entries() []entry { return t.fields() }

func (t *Trigger) fields() []entry {
	return []entry{
		{"name", &t.Name},
		{"subject", &t.Subject},
		{"stream", &t.Stream},
		{"filter", &t.Filter},
		{"when", &t.When},
		{"job", &t.Job},
		{"queue", &t.Queue},
		{"id", &t.ID},
		{"input", &t.Input},
	}
}

// faults returns what is wrong with the trigger, its expressions apart.
func (t Trigger) faults() []fault {
	var faults []fault
	add := func(field, message string) { faults = append(faults, fault{field: field, message: message}) }
	check := func(field string, err error) {
		if err != nil {
			add(field, err.Error())
		}
	}
	if t.Name == "" {
		add("name", "name is missing: give the trigger one")
	} else {
		check("name", name.Check("name", t.Name))
	}
	switch {
	case t.Subject == "" && t.Stream == "":
		add("subject", "subject is missing: give one, or a stream and a filter")
	case t.Subject != "" && t.Stream != "":
		add("stream", "stream and subject exclude each other: leave one out")
	case t.Filter != "" && t.Stream == "":
		add("filter", "filter is for events of a stream: add the stream, or leave filter out")
	}
	if t.Subject != "" {
		check("subject", name.CheckSubject(t.Subject))
	}
	if strings.ContainsAny(t.Stream, " .*>/\\\t\r\n") {
		add("stream", "stream "+quote(t.Stream)+" is no name that a stream can have: leave out white space and . * > / \\")
	}
	if t.Filter != "" {
		check("filter", name.CheckFilter(t.Filter))
	}
	if t.Job == "" {
		add("job", "job is missing: give the kind of job that the trigger starts")
	} else {
		check("job", name.CheckKind(t.Job))
	}
	if t.Queue != "" {
		check("queue", name.Check("queue", t.Queue))
	}
	return faults
}
