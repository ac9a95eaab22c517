package machine

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The hand-written encoder writes what encoding/json does.
func TestAppendJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			checkEncoder(t, j)
			j, _ = j.Apply(drawEvent(t, j, step))
		}
	})
}

func checkEncoder(t rapid.TB, j Job) {
	t.Helper()
	if got, want := unescaped(t, j.AppendJSON(nil)), unescaped(t, []byte(text(t, j))); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// unescaped takes away what differs in the input and the result, which the
// encoder leaves as they are: white space, and characters that may be escaped.
func unescaped(t rapid.TB, data []byte) string {
	t.Helper()
	var compact, escaped bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	return escaped.String()
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for step := range rapid.IntRange(0, 30).Draw(t, "steps") {
			j, _ = j.Apply(drawEvent(t, j, step))
		}
		var got Job
		if err := json.Unmarshal([]byte(text(t, j)), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(j, got, sameJSON); diff != "" {
			t.Fatalf("record (-) and as read again (+):\n%s", diff)
		}
	})
}

// encoding/json drops blanks and escapes < and > in raw messages.
var sameJSON = cmp.Comparer(func(a, b json.RawMessage) bool {
	return bytes.Equal(canonical(a), canonical(b))
})

func canonical(raw json.RawMessage) []byte {
	var compact, escaped bytes.Buffer
	if len(raw) > 0 && json.Compact(&compact, raw) != nil {
		return raw
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	return escaped.Bytes()
}
