package machine_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/millrace/millrace/engine/machine"
)

// What passes can be read again as part of a record, and only what cannot is refused.
func TestCheckValue(t *testing.T) {
	t.Parallel()
	nested := func(n int, in string) string {
		return strings.Repeat(`{"a":[`, n/2) + in + strings.Repeat(`]}`, n/2)
	}
	for name, c := range map[string]struct{ value, refused string }{
		"nothing":      {"", ""},
		"a number":     {" 1\n", ""},
		"no UTF-8":     {"\"\xff\"", ""},
		"brackets":     {`"\\\"` + strings.Repeat("[", 20_000) + `\\"`, ""},
		"side by side": {"[" + strings.Repeat("[],", 20_000) + "[]]", ""},
		"deep":         {nested(machine.MaxDepth, "1"), ""},
		"deeper":       {nested(machine.MaxDepth, "[]"), "it is nested 9001 deep, and up to 9000 are stored: make it flatter, or pass it as a string"},
		"deepest":      {nested(20_000, ""), "it is no JSON: invalid character '{' exceeded max depth"},
		"a word":       {"no", "it is no JSON: invalid character 'o' in literal null (expecting 'u')"},
		"two values":   {"1,2", "it is no JSON: invalid character ',' after top-level value"},
		"a member":     {`1,"state":"failed"`, "it is no JSON: invalid character ',' after top-level value"},
		"half":         {`{"a":`, "it is no JSON: unexpected end of JSON input"},
		"spaces":       {" ", "it is no JSON: unexpected end of JSON input"},
	} {
		err := machine.CheckValue(json.RawMessage(c.value))
		switch {
		case c.refused != "":
			if err == nil || err.Error() != c.refused {
				t.Errorf("%s: got %v, want %s", name, err, c.refused)
			}
			continue
		case err != nil:
			t.Errorf("%s: got %v", name, err)
			continue
		}
		body := machine.Job{ID: "q.1", Kind: "k", State: machine.Pending, Input: json.RawMessage(c.value)}.AppendJSON(nil)
		var back machine.Job
		if err := json.Unmarshal(body, &back); err != nil {
			t.Errorf("%s: the record cannot be read: %v", name, err)
		}
	}
}
