package spec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Template is the input of a schedule's jobs. Strings in it may have expressions in
// CEL, in ${ and }, over
//
//	tick.time       timestamp
//	tick.number     int, from 1; 0 for a job that the clock did not make
//	tick.date       string, the date in the zone of the schedule, such as 2027-03-28
//	tick.schedule   string, its name
//
// A string that is one expression becomes its value; in others text is joined, times
// as RFC 3339 in UTC. $${ stands for ${. Names of fields are never changed.
//
// It does not change, and any number of goroutines may use it.
type Template struct {
	schedule string
	zone     *time.Location
	pieces   []piece
}

// piece is a part of the JSON: JSON as it is, or what a string becomes.
type piece struct {
	json  []byte
	parts []part
}

// part is a part of a string: text, or an expression. What is only the name of a
// variable costs no program.
type part struct {
	text       string
	variable   string
	expression *expression
}

// maxExpressions bounds how many expressions there are in an input.
const maxExpressions = 100

// The variables of expressions about ticks.
const (
	tickTimeVar     = "tick.time"
	tickNumberVar   = "tick.number"
	tickDateVar     = "tick.date"
	tickScheduleVar = "tick.schedule"
)

var errInputTooLong = fmt.Errorf("input: with its values it is longer than %d bytes: make it smaller, and pass references", maxInput)

// Template returns the input of the schedule's jobs, or everything that is wrong with
// the schedule, as [Problems].
func (s Schedule) Template() (*Template, error) {
	t, faults := s.compile()
	if len(faults) > 0 {
		return nil, unplaced("schedule "+quote(s.Name), faults)
	}
	return t, nil
}

// Render returns the input of the job of a tick, or nil if there is none. The error
// is one line: which expression has no value, and why. The same tick fails again.
func (t *Template) Render(tick time.Time, number int64) (json.RawMessage, error) {
	var out []byte
	vars := tickVariables{t, tick, number}
	for _, p := range t.pieces {
		var err error
		if out, err = p.append(out, vars); err != nil {
			return nil, err
		}
		if len(out) > maxInput {
			return nil, errInputTooLong
		}
	}
	return out, nil
}

func (p piece) append(b []byte, vars tickVariables) ([]byte, error) {
	switch len(p.parts) {
	case 0:
		return append(b, p.json...), nil
	case 1:
		return p.parts[0].appendJSON(b, vars)
	}
	var text []byte
	for _, part := range p.parts {
		value, err := part.value(vars)
		if err != nil {
			return nil, err
		}
		words, ok := textOf(value)
		if !ok {
			return nil, part.expression.refuse(value, wantWords)
		}
		if text = append(text, words...); len(text) > maxInput {
			return nil, errInputTooLong
		}
	}
	return append(b, encode(string(text))...), nil
}

func (p part) appendJSON(b []byte, vars tickVariables) ([]byte, error) {
	value, err := p.value(vars)
	if err != nil {
		return nil, err
	}
	b, err = appendJSON(b, value)
	if err != nil {
		return nil, p.expression.errorf("%v", err)
	}
	return b, nil
}

func (p part) value(vars tickVariables) (ref.Val, error) {
	switch {
	case p.expression != nil:
		return p.expression.evaluate(vars)
	case p.variable != "":
		value, _ := vars.ResolveName(p.variable)
		return types.DefaultTypeAdapter.NativeToValue(value), nil
	}
	return types.String(p.text), nil
}

var wantWords = want{
	[]*cel.Type{cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType, cel.TimestampType, cel.DurationType},
	"text, a number, a time or a duration to be joined with text",
}

// textOf returns a value as it is joined with text.
func textOf(value ref.Val) (string, bool) {
	switch v := value.(type) {
	case types.String:
		return string(v), true
	case types.Double:
		return strconv.FormatFloat(float64(v), 'f', -1, 64), true
	case types.Int, types.Uint, types.Bool:
		return fmt.Sprint(v.Value()), true
	case types.Timestamp, types.Duration:
		words, err := appendJSON(nil, value)
		return strings.Trim(string(words), `"`), err == nil
	}
	return "", false
}

// tickVariables resolves the variables of expressions for one tick.
type tickVariables struct {
	template *Template
	time     time.Time
	number   int64
}

// ResolveName implements cel.Activation.
func (v tickVariables) ResolveName(name string) (any, bool) {
	switch name {
	case tickTimeVar:
		return v.time, true
	case tickNumberVar:
		return v.number, true
	case tickDateVar:
		return v.time.In(v.template.zone).Format(time.DateOnly), true
	case tickScheduleVar:
		return v.template.schedule, true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (tickVariables) Parent() cel.Activation { return nil }
