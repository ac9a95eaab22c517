package machine

import (
	"encoding/json"
	"fmt"
)

// MaxDepth is how deep a value may be nested. Packages that read JSON stop at 10,000,
// and a value is part of larger ones.
const MaxDepth = 9_000

// CheckValue reports why an input or a result cannot be part of a record: it is no
// JSON, which would make the whole record unreadable, or it is nested too deep. No
// bytes are no value, which can.
func CheckValue(value json.RawMessage) error {
	if len(value) == 0 {
		return nil
	}
	if !json.Valid(value) {
		var v any
		return fmt.Errorf("it is no JSON: %w", json.Unmarshal(value, &v))
	}
	if depth := depth(value); depth > MaxDepth {
		return fmt.Errorf("it is nested %d deep, and up to %d are stored: make it flatter, or pass it as a string", depth, MaxDepth)
	}
	return nil
}

// depth returns how deep valid JSON is nested.
func depth(value json.RawMessage) (deepest int) {
	open, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			open++
			deepest = max(deepest, open)
		case c == ']' || c == '}':
			open--
		}
	}
	return deepest
}
