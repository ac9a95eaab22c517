package main

import (
	"regexp"
	"testing"
)

// The attempt that was overtaken is told so by the store, and its context by the
// engine.
func TestOvertake(t *testing.T) {
	t.Parallel()
	story, err := overtake(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`^attempt 2 on young, which has its lease, paid$`,
		`^attempt 1 on old, which has lost its lease, did not pay: a newer attempt was here: its fence is \d+, this one's \d+$`,
		`^the ledger has 100$`,
	}
	if len(story) != len(want) {
		t.Fatalf("the story is %q", story)
	}
	for i, line := range story {
		if !regexp.MustCompile(want[i]).MatchString(line) {
			t.Errorf("got %q, want %s", line, want[i])
		}
	}
}

// The same attempt may write again, a newer one may, an older one may not.
func TestLedger(t *testing.T) {
	t.Parallel()
	l := &ledger{payments: map[string]payment{}}
	for _, c := range []struct {
		fence uint64
		ok    bool
	}{{5, true}, {5, true}, {9, true}, {5, false}, {8, false}, {9, true}} {
		if err := l.pay("card.1", c.fence, 100); (err == nil) != c.ok {
			t.Errorf("fence %d: %v", c.fence, err)
		}
	}
	if err := l.pay("card.2", 5, 100); err != nil {
		t.Errorf("another job: %v", err)
	}
}
