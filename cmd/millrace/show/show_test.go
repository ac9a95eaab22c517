package show_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
)

// What others wrote is shown on one line, and obeyed by no terminal.
func TestPlain(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                      "",
		"grün ✓":                "grün ✓",
		"a\tb\nc":               "a b c",
		"\x1b[2J\x07\u202eevil": "\uFFFD[2J\uFFFD\uFFFDevil",
		"\xff":                  "\uFFFD",
		"exactly 12 c":          "exactly 12 c",
		"thirteen char":         "thirteen ch…",
		"ääääääääääääääääääääää": "äääääääääää…",
	} {
		if got := show.Plain(given, 12); got != want {
			t.Errorf("Plain(%q) = %q, want %q", given, got, want)
		}
	}
}

// Durations have the digits that are of interest.
func TestLength(t *testing.T) {
	t.Parallel()
	for given, want := range map[time.Duration]string{
		0:                          "0s",
		1234567 * time.Nanosecond:  "1ms",
		999400 * time.Microsecond:  "999ms",
		12345678 * time.Nanosecond: "12ms",
		1234 * time.Millisecond:    "1.23s",
		75600 * time.Millisecond:   "1m16s",
	} {
		if got := show.Length(given); got != want {
			t.Errorf("Length(%d) = %s, want %s", given, got, want)
		}
	}
}
