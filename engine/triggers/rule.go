package triggers

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/name"
)

// Rule is a trigger as it runs, wherever it was declared.
type Rule struct {
	Name   string
	Source Source
	Kind   string // of the jobs
	Terms
	// Mapping returns what an event comes to, or [ErrSkip], or why it cannot
	// start a job.
	Mapping func(Message) (Mapped, error)
	stored  uint64 // the revision of the definition; 0 if it is in Go
}

// Mapped is what an event comes to.
type Mapped struct {
	ID    string // any string; empty means an ID of the event's own
	Input json.RawMessage
}

// storedRule returns the rule of a stored trigger.
func storedRule(t spec.Trigger, revision uint64) (Rule, error) {
	mapping, err := spec.Compile(t)
	if err != nil {
		return Rule{}, err
	}
	return Rule{
		Name: t.Name, Source: Source{t.Subject, t.Stream, t.Filter}, Kind: t.Job, Terms: Terms{Queue: t.Queue}, stored: revision,
		Mapping: func(m Message) (Mapped, error) {
			out, err := mapping.Map(spec.Event{Subject: m.Subject, Data: m.Data, Header: m.Header, Time: m.Time, Sequence: m.Sequence})
			if err == nil && out.Skip {
				err = ErrSkip
			}
			return Mapped{out.ID, out.Input}, err
		},
	}, nil
}

// Check returns what is wrong with the rule's name and source, one problem a
// line.
func (r Rule) Check() error {
	errs := []error{name.Check("name", r.Name)}
	s := r.Source
	switch {
	case s.subject != "":
		errs = append(errs, name.CheckSubject(s.subject))
	case s.stream == "":
		errs = append(errs, errors.New("it has no source: give engine.Subject(…) or engine.Stream(…), neither of them empty"))
	case strings.ContainsAny(s.stream, " .*>/\\\t\r\n"):
		errs = append(errs, fmt.Errorf("stream %q is no name that a stream can have", s.stream))
	case s.filter != "":
		errs = append(errs, name.CheckFilter(s.filter))
	}
	return errors.Join(errs...)
}

// apply maps an event. A panic is an error.
func (r Rule) apply(m Message) (out Mapped, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{value: v, stack: string(debug.Stack())}
		}
	}()
	return r.Mapping(m)
}

// panicked is a panic of a mapping that a user wrote.
type panicked struct {
	value any
	stack string
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }
