package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/name"
)

// The files of triggers, in the order of an event's way:
//
//	trigger.go         what a trigger is, and those in Go
//	trigger_apply.go   those that are stored, and _stored, _delete, _info
//	capture.go         which stream has the events of a source
//	trigger_place.go   the cursor and the consumer that a trigger needs there
//	trigger_serve.go   who runs stored triggers
//	trigger_run.go     a runner reads events
//	trigger_event.go   an event becomes a job and is then acknowledged
//	event_dead.go      or it cannot, and is kept with the reason

// Trigger lets events start jobs. [On] makes one; a [Worker] that is given it
// runs it.
type Trigger struct {
	rule rule
	errs []error
}

// TriggerOptions says more about a trigger. The zero value of a field means its
// default.
type TriggerOptions[In any] struct {
	// ID returns the local ID of the job for an event and its input, any
	// string: events with the same one start one job between them, for as long
	// as that job is kept. An empty string, and the default, is an ID of the
	// event's own.
	ID func(Message, In) string
}

// On defines a trigger: every event of the source starts a job, whose input
// mapping returns. A nil mapping decodes the event's data as JSON.
//
// If mapping returns [Skip] the event starts no job. Any other error, and a
// panic, is the end of the event: it goes to the list that [Engine.DeadEvents]
// returns. Events arrive at least once, but one that arrives again starts
// nothing, since its job's ID is the same.
//
// The trigger runs in every [Worker] that is given it; between them they handle
// each event once. Its name, one token, is the only one of its kind in the
// namespace, stored triggers included. Where several programs have a trigger of
// one name with different sources or jobs, the one that started last has it, so
// that a new version takes over from the old one. A trigger that no program has
// any more goes on collecting events until [Engine.DeleteTrigger].
func On[In, Out any](name string, source Source, job *Job[In, Out], mapping func(Message) (In, error), opts ...TriggerOptions[In]) *Trigger {
	t := &Trigger{rule: rule{name: name, source: source}}
	t.errs = append(t.errs, source.check(name)...)
	if job == nil {
		t.errs = append(t.errs, errors.New("job is nil: give the job that it starts"))
		return t
	}
	t.rule.kind, t.rule.queue, t.rule.attempts = job.def.kind, job.def.opts.Queue, job.def.opts.MaxAttempts
	if job.def.err != nil {
		t.errs = append(t.errs, job.def.err)
	}
	if mapping == nil {
		mapping = func(m Message) (in In, err error) { return in, m.Decode(&in) }
	}
	o := first(opts)
	t.rule.mapping = func(m Message) (mapped, error) {
		in, err := mapping(m)
		if err != nil {
			return mapped{}, err
		}
		out := mapped{}
		if o.ID != nil {
			out.id = o.ID(m, in)
		}
		if out.input, err = json.Marshal(in); err != nil {
			return mapped{}, fmt.Errorf("the input of the job does not become JSON: %w", err)
		}
		return out, nil
	}
	return t
}

func (t *Trigger) register(w *Worker) error {
	errs := t.errs
	for _, other := range w.triggers {
		if other.name == t.rule.name {
			errs = append(errs, errors.New("the worker has two triggers of that name: rename one"))
		}
	}
	w.triggers = append(w.triggers, t.rule)
	if len(errs) == 0 {
		return nil
	}
	lines := make([]string, len(errs))
	for i, err := range errs {
		lines[i] = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return fmt.Errorf("engine: trigger %q: %s", t.rule.name, strings.Join(lines, "; "))
}

// check returns what is wrong with a trigger's name and source.
func (s Source) check(trigger string) (errs []error) {
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(name.Check("name", trigger))
	switch {
	case s.subject != "":
		add(name.CheckSubject(s.subject))
	case s.stream == "":
		add(errors.New("it has no source: give engine.Subject(…) or engine.Stream(…), neither of them empty"))
	case strings.ContainsAny(s.stream, " .*>/\\\t\r\n"):
		add(fmt.Errorf("stream %q is no name that a stream can have", s.stream))
	case s.filter != "":
		add(name.CheckFilter(s.filter))
	}
	return errs
}

// rule is a trigger as it runs, wherever it was declared.
type rule struct {
	name     string
	source   Source
	kind     string
	queue    string // of the jobs; empty means the kind's
	attempts int    // 0 means the default
	mapping  func(Message) (mapped, error)
	stored   uint64 // the revision of the definition; 0 if it is in Go
}

// mapped is what an event comes to. An empty ID is one of the event's own.
type mapped struct {
	id    string
	input json.RawMessage
}

// storedRule returns the rule of a stored trigger.
func storedRule(t spec.Trigger, revision uint64) (rule, error) {
	mapping, err := spec.Compile(t)
	if err != nil {
		return rule{}, err
	}
	return rule{
		name: t.Name, source: Source{t.Subject, t.Stream, t.Filter}, kind: t.Job, queue: t.Queue, stored: revision,
		mapping: func(m Message) (mapped, error) {
			out, err := mapping.Map(spec.Event{Subject: m.Subject, Data: m.Data, Header: m.Header, Time: m.Time, Sequence: m.Sequence})
			if err == nil && out.Skip {
				err = Skip
			}
			return mapped{out.ID, out.Input}, err
		},
	}, nil
}

// apply maps an event. A panic is an error.
func (r rule) apply(m Message) (out mapped, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{value: v, stack: string(debug.Stack())}
		}
	}()
	return r.mapping(m)
}
