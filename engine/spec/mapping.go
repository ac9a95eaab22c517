package spec

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Mapping is a compiled [Trigger]: it says what job an event starts. It is safe
// for concurrent use.
type Mapping struct {
	when, id, input *expression // nil means the default
}

// Mapped is what an event comes to.
type Mapped struct {
	// Skip is set if the event starts nothing, because of the trigger's when.
	Skip bool

	// ID is what the trigger's id says, any string but the empty one: pass it
	// through [github.com/millrace/millrace/internal/name.Token]. It is empty if
	// the trigger has no id.
	ID string

	// Input is the input of the job, JSON. It may be the event's own data, so
	// neither is to be changed.
	Input json.RawMessage
}

// Compile returns the mapping of a trigger, or [Problems].
func Compile(t Trigger) (*Mapping, error) {
	m, faults := t.compile()
	if len(faults) > 0 {
		return nil, unplaced("trigger "+quote(t.Name), faults)
	}
	return m, nil
}

// Map says what job the event starts. The error is one line: which expression
// has no value of its type for this event, and why. The same event fails again.
func (m *Mapping) Map(e Event) (Mapped, error) {
	vars := &variables{event: e}
	if m.when != nil {
		ok, err := m.when.bool(vars)
		if err != nil {
			return Mapped{}, err
		}
		if !ok {
			return Mapped{Skip: true}, nil
		}
	}
	var out Mapped
	var err error
	if m.id != nil {
		if out.ID, err = m.id.string(vars); err != nil {
			return Mapped{}, err
		}
	}
	if m.input == nil {
		out.Input = e.input()
		return out, nil
	}
	if out.Input, err = m.input.json(vars); err != nil {
		return Mapped{}, err
	}
	return out, nil
}

// compile returns the mapping, or everything that is wrong with the trigger.
func (t Trigger) compile() (*Mapping, []fault) {
	faults := t.faults()
	language := eventLanguage()
	m := &Mapping{}
	add := func(x **expression, field, text string, want want) {
		if text == "" {
			return
		}
		var found []fault
		*x, found = language.compile(field, text, want)
		faults = append(faults, found...)
	}
	add(&m.when, "when", t.When, wantBool)
	add(&m.id, "id", t.ID, wantText)
	if strings.TrimSpace(t.Input) != dataVar {
		add(&m.input, "input", t.Input, want{})
	}
	return m, faults
}

// bool returns the value of an expression that must be true or false.
func (x *expression) bool(vars *variables) (bool, error) {
	value, err := x.evaluate(vars)
	if err != nil {
		return false, err
	}
	b, ok := value.(types.Bool)
	if !ok {
		return false, x.refuse(value, wantBool)
	}
	return bool(b), nil
}

// string returns the value of an expression that must be a string or a number.
func (x *expression) string(vars *variables) (string, error) {
	value, err := x.evaluate(vars)
	if err != nil {
		return "", err
	}
	switch v := value.(type) {
	case types.String:
		if v == "" {
			return "", x.errorf("for this event it is an empty string, which is no ID")
		}
		return string(v), nil
	case types.Int:
		return strconv.FormatInt(int64(v), 10), nil
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), nil
	case types.Double:
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return "", x.errorf("for this event it is %v, which is no ID", f)
		}
		return strconv.FormatFloat(float64(v), 'f', -1, 64), nil
	}
	return "", x.refuse(value, wantText)
}

// json returns the value of an expression as JSON.
func (x *expression) json(vars cel.Activation) (json.RawMessage, error) {
	value, err := x.evaluate(vars)
	if err != nil {
		return nil, err
	}
	out, err := appendJSON(nil, value)
	if err != nil {
		return nil, x.errorf("%v", err)
	}
	return out, nil
}
