package program

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/engine"
)

// An attempt that has to end is over when the last process of its command has
// ended, although nobody asks for the status of that process; and not before.
func TestCommandEnds(t *testing.T) {
	t.Parallel()
	// What a command leaves is this process's from now on, which never asks.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	for line, want := range map[string]string{
		"echo ready; sleep 1000; echo": "",
		`sh -c "trap 'sleep 0.1; echo ended >` + out + `; exit' TERM; echo ready; exec >&- 2>&-; while :; do sleep 0.01; done" & wait`: "ended\n",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ready := writer(func([]byte) { cancel() })
		h := Handler{Line: line, Grace: time.Hour, Running: &Running{}}
		state, err := h.run(ctx, engine.Current{}, nil, ready, io.Discard)
		if err != nil || !strings.HasPrefix(state.String(), "signal: terminated") {
			t.Errorf("%s: got %v, %v, want it terminated", line, state, err)
		}
		if got, _ := os.ReadFile(out); string(got) != want {
			t.Errorf("%s: it wrote %q, want %q", line, got, want)
		}
		_ = os.Remove(out)
	}
}

// The states are read wherever the name of a process ends.
func TestLiving(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]bool{
		"12 (sh) S 1 7 7 0 -1":          true,
		"12 (sh) Z 1 7 7 0 -1":          false,
		"12 (sh) X 1 7 7 0 -1":          false,
		"12 (sh) S 1 8 7 0 -1":          false,
		"12 (a) Z 1 8 (b) R 1 7 7 0 -1": true,
		"12 (sh":                        false,
		"":                              false,
	} {
		if got := living([]byte(stat), 7); got != want {
			t.Errorf("living(%q) = %t, want %t", stat, got, want)
		}
	}
}
