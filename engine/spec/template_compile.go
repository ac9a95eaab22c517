package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/millrace/millrace/timers/calendar"
)

// template compiles the input, or returns everything that is wrong with it.
func (s Schedule) template() (*Template, []fault) {
	fail := func(message string) (*Template, []fault) { return nil, []fault{{field: "input", message: message}} }
	if len(s.Input) == 0 || string(s.Input) == "null" {
		return &Template{}, nil
	}
	if len(s.Input) > maxInput {
		return fail(fmt.Sprintf("input has %d bytes: use up to %d, and pass references", len(s.Input), maxInput))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, s.Input); err != nil {
		return fail("input is no JSON: " + oneLine(err.Error()))
	}
	c := templateCompiler{text: compact.Bytes()}
	if !c.compile() {
		return fail(fmt.Sprintf("input is nested more than %d deep: make it flatter", maxDepth))
	}
	if c.expressions > maxExpressions {
		return fail(fmt.Sprintf("input has %d expressions: use up to %d", c.expressions, maxExpressions))
	}
	return &Template{s.Name, s.location(), c.pieces}, c.faults
}

// location returns the zone of the schedule, or UTC if it has none that is known.
func (s Schedule) location() *time.Location {
	c, err := calendar.Compile(calendar.Rule{Zone: s.Zone})
	if err != nil {
		return time.UTC
	}
	return c.Zone()
}

// templateCompiler finds the strings that have expressions.
type templateCompiler struct {
	text        []byte // compact JSON
	done        int    // how much of it is in pieces
	pieces      []piece
	language    *language // made for the first expression
	expressions int
	faults      []fault
}

// place is where in the JSON something is: in a list, or in a mapping, after the key
// that was read last.
type place struct {
	path string
	list bool
	next int
	key  string
	keys bool // a key is to come
}

func (p *place) child() string {
	if p.list {
		p.next++
		return itemPath(p.path, p.next-1)
	}
	return keyPath(p.path, p.key)
}

// compile finds the strings. It returns false if the JSON is nested too deep.
func (c *templateCompiler) compile() bool {
	dec := json.NewDecoder(bytes.NewReader(c.text))
	dec.UseNumber()
	var open []*place
	for {
		before := int(dec.InputOffset())
		token, err := dec.Token()
		if err != nil {
			break
		}
		if len(open) > maxDepth {
			return false
		}
		if token == json.Delim(']') || token == json.Delim('}') {
			open = open[:len(open)-1]
			continue
		}
		var in *place
		if len(open) > 0 {
			in = open[len(open)-1]
		}
		if in != nil && in.keys {
			in.key, in.keys = token.(string), false
			continue
		}
		path := "input"
		if in != nil {
			path, in.keys = in.child(), !in.list
		}
		switch v := token.(type) {
		case json.Delim:
			open = append(open, &place{path: path, list: v == '[', keys: v == '{'})
		case string:
			begin := before + bytes.IndexByte(c.text[before:], '"')
			c.string(path, v, begin, int(dec.InputOffset()))
		}
	}
	c.pieces = append(c.pieces, piece{json: c.text[c.done:]})
	return true
}

// string takes a string that stands at a place of the JSON.
func (c *templateCompiler) string(path, text string, begin, end int) {
	if !strings.Contains(text, "${") {
		return
	}
	c.pieces = append(c.pieces, piece{json: c.text[c.done:begin]}, piece{parts: c.parts(path, text)})
	c.done = end
}

// parts cuts a string into text and expressions.
func (c *templateCompiler) parts(path, text string) []part {
	var parts []part
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			parts = append(parts, part{text: plain.String()})
			plain.Reset()
		}
	}
	alone := strings.HasPrefix(text, "${") && expressionEnd(text, 2) == len(text)-1
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "$${"):
			plain.WriteString("${")
			i += len("$${")
		case strings.HasPrefix(text[i:], "${"):
			flush()
			end := expressionEnd(text, i+2)
			if end < 0 {
				c.fault(path, text, i, fault{message: `the expression does not end: write "}" after it, or $${ for the characters themselves`})
				return nil
			}
			want := wantWords
			if alone {
				want.types = nil
			}
			parts = append(parts, c.part(path, text, text[i+2:end], i+2, want))
			i = end + 1
		default:
			plain.WriteByte(text[i])
			i++
		}
	}
	flush()
	return parts
}

// part compiles one expression, which stands at an offset of a string.
func (c *templateCompiler) part(path, text, expression string, offset int, want want) part {
	c.expressions++
	switch variable := strings.TrimSpace(expression); variable {
	case tickTimeVar, tickNumberVar, tickDateVar, tickScheduleVar:
		return part{variable: variable}
	}
	if c.expressions > maxExpressions {
		return part{}
	}
	if c.language == nil {
		c.language = newLanguage("tick",
			variable{tickTimeVar, cel.TimestampType},
			variable{tickNumberVar, cel.IntType},
			variable{tickDateVar, cel.StringType},
			variable{tickScheduleVar, cel.StringType},
		)
	}
	compiled, faults := c.language.compile(path, expression, want)
	for _, f := range faults {
		c.fault(path, text, offset, f)
	}
	return part{expression: compiled}
}

// fault notes a problem of an expression that stands at an offset of a string.
func (c *templateCompiler) fault(path, text string, offset int, f fault) {
	before := text[:offset]
	line := strings.Count(before, "\n")
	if f.line <= 1 {
		f.column += len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
	}
	if f.message != "" && f.field == "" {
		f.message = path + ": " + f.message
	}
	f.field, f.line = path, line+max(f.line, 1)
	c.faults = append(c.faults, f)
}

// expressionEnd returns where the brace is that ends an expression, or -1. Braces in
// the quotes of strings do not count.
func expressionEnd(text string, begin int) int {
	depth, quote := 0, byte(0)
	for i := begin; i < len(text); i++ {
		switch b := text[i]; {
		case quote != 0 && b == '\\':
			i++
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == '"' || b == '\'':
			quote = b
		case b == '{':
			depth++
		case b == '}' && depth > 0:
			depth--
		case b == '}':
			return i
		}
	}
	return -1
}
