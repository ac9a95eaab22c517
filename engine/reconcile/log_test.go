package reconcile_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What was healed is in the log, at a takeover and at any other time, and only
// then does it warn.
func TestLog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var out bytes.Buffer
		want := func(lines ...string) {
			t.Helper()
			synctest.Wait()
			for _, line := range lines {
				if !strings.Contains(out.String(), line) {
					t.Errorf("the log does not say %q: %s", line, &out)
				}
			}
			if n := strings.Count(out.String(), "\n"); n != len(lines) {
				t.Errorf("the log has %d lines, want %d: %s", n, len(lines), &out)
			}
			out.Reset()
		}
		w.create(job("first"))
		w.create(job("second"))
		time.Sleep(time.Minute)
		w.own("owner", slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
		time.Sleep(time.Minute)
		want("healed=map[item:2]")
		w.create(job("third"))
		time.Sleep(time.Minute)
		want("healed=map[item:1]")
		time.Sleep(time.Hour)
		want()
	})
}
