package main

import "testing"

// The example does what it says.
func TestShout(t *testing.T) {
	t.Parallel()
	got, err := shout(t.Context(), t.TempDir(), "hello")
	if err != nil || got != "HELLO!" {
		t.Errorf("got %q, %v, want HELLO!", got, err)
	}
}
