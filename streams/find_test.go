package streams_test

import (
	"math"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// A timer is found by its purpose, time and job, until it ends.
func TestTimersHas(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	c.set(due(noon, "a"))
	finds := func(timer streams.Timer, want bool) {
		t.Helper()
		if got := must(c.timers.Has(t.Context(), timer))(t); got != want {
			t.Errorf("%s at %v of %s: got %v, want %v", timer.Purpose, timer.At, timer.Local, got, want)
		}
	}
	finds(due(noon, "a"), true)
	finds(due(noon.Add(-1), "a"), true) // rounded up
	finds(due(noon.Add(time.Millisecond), "b"), false)
	finds(due(noon.Add(time.Minute), "a"), false)
	finds(due(noon.Add(time.Second), "a"), false) // of the same subject
	finds(event(streams.PurposeDeadline, "a"), false)
	if err := c.timers.Delete(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	finds(due(noon, "a"), false)
	_, err := c.timers.Has(t.Context(), streams.Timer{})
	oneLine(t, err, "streams: look for timer", `purpose "" is none`)
}

// An item is found in whatever hands it is, until it is done with.
func TestOffered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	w.offer("a", "b")
	w.pull(w.puller(), 1, time.Minute)
	if err := w.work.Withdraw(t.Context(), "", "mail", "b", math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	for local, want := range map[string]bool{"a": true, "b": false, "c": false} {
		if got := must(w.work.Offered(t.Context(), "", "mail", local))(t); got != want {
			t.Errorf("%s: got %v, want %v", local, got, want)
		}
	}
	for revision, want := range map[uint64]bool{6: true, 7: true, 8: false} {
		if got := must(w.work.OfferedAt(t.Context(), "", "mail", "a", revision))(t); got != want {
			t.Errorf("at revision %d: got %v, want %v", revision, got, want)
		}
	}
	w.nc.Close()
	_, err := w.work.Offered(t.Context(), "", "mail", "a")
	oneLine(t, err, "streams: look for the item of mail.a")
}
