package main

import (
	"testing"
)

// Six shards have imported every row once.
func TestImport(t *testing.T) {
	t.Parallel()
	counts, err := importAll(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	if len(counts) != 6 || sum != len(rows) {
		t.Errorf("got %v, want six shards with %d rows", counts, len(rows))
	}
}
