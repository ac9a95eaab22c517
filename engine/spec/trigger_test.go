package spec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/engine/spec"
	"pgregory.net/rapid"
)

// A trigger made in Go is refused in the same words, without a place.
func TestValidate(t *testing.T) {
	t.Parallel()
	good := spec.Trigger{Name: "a", Subject: "a", Job: "a.x"}
	if err := good.Validate(); err != nil {
		t.Errorf("a good trigger is refused: %v", err)
	}
	bad := spec.Trigger{Name: "a b", Stream: "S", Filter: "a.>.b", When: "1 +", Job: "a.x"}
	want := strings.Join([]string{
		`trigger "a b": name "a b" contains ' ': use only A-Z a-z 0-9 _ -`,
		`trigger "a b": filter "a.>.b" has ">" before its end: use "*" there`,
		`trigger "a b": when: the expression ends too early`,
	}, "\n")
	err := bad.Validate()
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	var problems spec.Problems
	if !errors.As(err, &problems) || len(problems) != 3 {
		t.Errorf("the error is %T, want three problems", err)
	}
	if _, err := spec.Compile(bad); err == nil || err.Error() != want {
		t.Errorf("compile: got\n%v\nwant\n%s", err, want)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	before := spec.Trigger{Name: "a", Subject: "a.b", When: "true", Job: "a.x"}
	after := spec.Trigger{Name: "a", Stream: "S", When: "true", Job: "a.y"}
	want := []spec.Change{
		{Field: "subject", Old: "a.b"},
		{Field: "stream", New: "S"},
		{Field: "job", Old: "a.x", New: "a.y"},
	}
	if diff := cmp.Diff(want, spec.Diff(before, after)); diff != "" {
		t.Error(diff)
	}
	if got := spec.Diff(before, before); got != nil {
		t.Errorf("a trigger differs from itself in %v", got)
	}
}

// triggers draws triggers that are valid.
func triggers() *rapid.Generator[spec.Trigger] {
	expression := func(texts ...string) *rapid.Generator[string] { return rapid.SampledFrom(append(texts, "")) }
	return rapid.Custom(func(t *rapid.T) spec.Trigger {
		trigger := spec.Trigger{
			Name:  rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "name"),
			Job:   rapid.StringMatching(`[a-z]{1,8}(\.[a-z0-9_-]{1,8}){0,2}`).Draw(t, "job"),
			Queue: rapid.StringMatching(`[a-z]{0,8}`).Draw(t, "queue"),
			When:  expression("event.data.total > 0", "event.subject == \"a\\\"'\\n\" // ü").Draw(t, "when"),
			ID:    expression("event.data.id", "\"{\" + event.subject").Draw(t, "id"),
			Input: expression("{'a': event.data,\n 'b': [1]}\n").Draw(t, "input"),
		}
		if rapid.Bool().Draw(t, "stream") {
			trigger.Stream = rapid.StringMatching(`[A-Z_]{1,8}`).Draw(t, "stream")
			trigger.Filter = rapid.StringMatching(`([a-z*]\.[a-z]{1,4}(\.>)?)?`).Draw(t, "filter")
		} else {
			trigger.Subject = rapid.StringMatching(`[a-z]{2,4}(\.[a-zü]{1,4}){0,3}(\.[*>])?`).
				Filter(func(s string) bool { return !strings.HasPrefix(s, "mr.") }).Draw(t, "subject")
		}
		return trigger
	})
}

// A trigger comes back as it was from its JSON, through the parser of documents
// as through that of Go.
func TestJSONLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := triggers().Draw(t, "trigger")
		if err := want.Validate(); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := spec.Parse("f.json", data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]spec.Document{want}, docs); diff != "" {
			t.Error(diff)
		}
		var got spec.Trigger
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := spec.Diff(want, got); diff != nil {
			t.Error(diff)
		}
	})
}

// What changed can be read as JSON by programs.
func TestChangeJSON(t *testing.T) {
	t.Parallel()
	out, err := json.Marshal(spec.Diff(spec.Trigger{Subject: "a"}, spec.Trigger{Subject: "b"}))
	const want = `[{"field":"subject","old":"a","new":"b"}]`
	if err != nil || string(out) != want {
		t.Errorf("got %s, %v, want %s", out, err, want)
	}
}
