package spec

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/name"
)

// Queue says how the jobs of a queue are run and kept. A queue works without a
// definition, so everything but the name may be left out.
type Queue struct {
	// Name is one token. It is required.
	Name string `json:"name"`

	// Concurrency is how many jobs of the queue run at once, on all nodes
	// together. Default: as many as there are slots.
	Concurrency int `json:"concurrency,omitempty"`

	// Paused keeps jobs from starting. A definition that does not say leaves
	// the queue as it is, so that applying a file does not undo what somebody
	// did for a reason.
	Paused *bool `json:"paused,omitempty"`

	// Retention is for how long records stay after their jobs have ended.
	Retention Retention `json:"retention,omitzero"`
}

// Retention is for how long records stay, by the state in which their jobs ended.
// 0 means the default.
type Retention struct {
	// Succeeded is for jobs with a result. Default 24h.
	Succeeded Duration `json:"succeeded,omitzero"`
	// Failed is for those that failed for good. Default 14d.
	Failed Duration `json:"failed,omitzero"`
	// Cancelled is for those that somebody ended, and for ticks of schedules that
	// were skipped. Default 14d.
	Cancelled Duration `json:"cancelled,omitzero"`
}

// MinRetention is the shortest retention: whoever waits for a job, or submits it
// again after an answer was lost, has to find it.
const MinRetention = Duration(10 * time.Minute)

// Kind returns "Queue".
func (Queue) Kind() string { return "Queue" }

// Key returns the key of the queue in the config bucket.
func (q Queue) Key() string { return "queue." + q.Name }

// IsPaused reports whether jobs are kept from starting.
func (q Queue) IsPaused() bool { return q.Paused != nil && *q.Paused }

// MarshalJSON writes the queue as a document that [Parse] reads.
func (q Queue) MarshalJSON() ([]byte, error) {
	type fields Queue
	return encode(struct {
		Kind string `json:"kind"`
		fields
	}{q.Kind(), fields(q)}), nil
}

// Validate reports everything that is wrong with a queue that did not come from
// [Parse], as [Problems].
func (q Queue) Validate() error { return unplaced("queue "+quote(q.Name), q.faults()) }

func readQueue(r *reader) Document {
	var q Queue
	r.read(q.fields())
	r.report(q.faults())
	return q
}

func (q *Queue) fields() []entry {
	return []entry{
		{"name", &q.Name},
		{"concurrency", &q.Concurrency},
		{"paused", &q.Paused},
		{"retention", q.Retention.fields()},
	}
}

func (r *Retention) fields() []entry {
	return []entry{
		{"succeeded", &r.Succeeded},
		{"failed", &r.Failed},
		{"cancelled", &r.Cancelled},
	}
}

func (q Queue) entries() []entry { return q.fields() }

func (q Queue) faults() []fault {
	var faults []fault
	add := func(field, message string) { faults = append(faults, fault{field: field, message: message}) }
	if q.Name == "" {
		add("name", "name is missing: give the queue that it is about")
	} else if err := name.Check("name", q.Name); err != nil {
		add("name", err.Error())
	}
	if q.Concurrency < 0 {
		add("concurrency", fmt.Sprintf("concurrency is %d: use 1 or more, or 0 for no limit", q.Concurrency))
	}
	for _, e := range leaves("retention.", q.Retention.fields()) {
		d := *e.into.(*Duration)
		switch {
		case d == 0:
		case d < MinRetention:
			add(e.name, fmt.Sprintf("%s is %v: no retention is shorter than %v", e.name, d, MinRetention))
		case d > longest:
			add(e.name, fmt.Sprintf("%s is %v: use %v or less", e.name, d, longest))
		case time.Duration(d)%time.Second != 0:
			add(e.name, fmt.Sprintf("%s is %v: use whole seconds", e.name, d))
		}
	}
	return faults
}
