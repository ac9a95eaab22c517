package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every shop has flushed its cache once, and says how many prices it had.
func TestFlush(t *testing.T) {
	t.Parallel()
	shops := map[string]*shop{
		"berlin": {prices: map[string]int{"apple": 3, "pear": 4}},
		"paris":  {prices: map[string]int{}},
		"rome":   {prices: map[string]int{"apple": 3}},
	}
	parts, err := flush(t.Context(), t.TempDir(), shops)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, p := range parts {
		got[p.Node] = p.Value
		if p.State != "succeeded" || len(p.Attempts) != 1 {
			t.Errorf("%s %s after %d attempts", p.Node, p.State, len(p.Attempts))
		}
	}
	if diff := cmp.Diff(map[string]int{"berlin": 2, "paris": 0, "rome": 1}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for node, s := range shops {
		if len(s.prices) > 0 {
			t.Errorf("%s still has %v", node, s.prices)
		}
	}
}
