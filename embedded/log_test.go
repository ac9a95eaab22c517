package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// What the server says arrives with its level; what keeps it from starting is
// kept for the caller of Start.
func TestBridge(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &bridge{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	b.Warnf("early warning %d", 0)
	b.ready.Store(true)
	b.Noticef("notice %d", 1)
	b.Warnf("warning %d", 2)
	b.Errorf("error %d", 3)
	b.Debugf("debug %d", 4)
	b.Tracef("trace %d", 5)
	b.Fatalf("fatal %d", 6)
	b.Fatalf("fatal %d", 7)
	for _, want := range []string{
		`level=DEBUG msg="nats server warns" text="early warning 0"`,
		`level=DEBUG msg="nats server reports" text="notice 1"`,
		`level=WARN msg="nats server warns" text="warning 2"`,
		`level=ERROR msg="nats server failed" err="error 3"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log is %s, want it to have %s", &out, want)
		}
	}
	if got := strings.Count(out.String(), "\n"); got != 4 {
		t.Errorf("logged %d lines, want 4: %s", got, &out)
	}
	if err := b.failure(); err == nil || err.Error() != "fatal 6" {
		t.Errorf("failure is %v, want fatal 6", err)
	}
}
