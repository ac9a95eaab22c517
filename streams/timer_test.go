package streams_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// noon is when timers of the tests are due.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clockwork is the stream of timers, over a connection of its own.
type clockwork struct {
	testing.TB
	nc     *nats.Conn
	timers *streams.Timers
}

// newClockwork makes the assets.
func newClockwork(t testing.TB) *clockwork {
	t.Helper()
	nc := connect(t, natstest.Start(t, t.TempDir()))
	ensure(t, nc, streams.Options{})
	return &clockwork{t, nc, must(streams.NewTimers(ns, publisher(t, nc)))(t)}
}

// set sets a timer.
func (c *clockwork) set(timer streams.Timer) {
	c.Helper()
	if err := c.timers.Set(c.Context(), timer); err != nil {
		c.Fatal(err)
	}
}

// holds fails the test unless the stream holds so many timers.
func (c *clockwork) holds(want uint64) {
	c.Helper()
	if got := state(c, open(c, c.nc), ns.TimerStream()).Msgs; got != want {
		c.Errorf("the stream holds %d timers, want %d", got, want)
	}
}

// due returns a timer that offers an item.
func due(at time.Time, local string) streams.Timer {
	return streams.Timer{
		Purpose: streams.PurposeDue, At: at, Queue: "mail", Local: local,
		Item: streams.Item{Queue: "mail", Local: local, Record: []byte("record of " + local), Revision: 7, Due: at},
	}
}

// event returns a timer that is an event for the owner.
func event(purpose streams.Purpose, local string) streams.Timer {
	return streams.Timer{Purpose: purpose, At: noon, Queue: "mail", Local: local}
}

// A timer is read as it was set.
func TestTimers(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	for i, want := range []streams.Timer{
		due(noon, "a"),
		due(noon.Add(time.Millisecond), "nightly=1700000000000-manual"),
		event(streams.PurposeQueued, "a"),
		event(streams.PurposeDeadline, "a"),
		event(streams.PurposeExpiry, "a"),
	} {
		c.set(want)
		want.Sequence = uint64(i + 1)
		if d := cmp.Diff(want, must(c.timers.Get(t.Context(), want.Sequence))(t)); d != "" {
			t.Errorf("timer (-want +got):\n%s", d)
		}
	}
	c.holds(5)
}

// Nothing is due before its time: what the stream cannot store is rounded up.
func TestTimerRounding(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	for i, test := range []struct{ at, want time.Time }{
		{noon, noon},
		{noon.Add(1), noon.Add(time.Millisecond)},
		{noon.Add(time.Millisecond - 1), noon.Add(time.Millisecond)},
		{noon.Add(-1), noon},
		{noon.In(time.FixedZone("here", 3600)), noon},
	} {
		timer := due(test.at, fmt.Sprint(i))
		c.set(timer)
		got := must(c.timers.Get(t.Context(), uint64(i+1)))(t)
		if !got.At.Equal(test.want) || !got.Item.Due.Equal(test.want) || got.At.Location() != time.UTC {
			t.Errorf("%v is due at %v and its item at %v, want %v", test.at, got.At, got.Item.Due, test.want)
		}
		if got, want := ns.TimerSubject(test.at, "due", "mail", "a"), ns.TimerSubject(test.want, "due", "mail", "a"); got != want {
			t.Errorf("%v lies on %s, want %s", test.at, got, want)
		}
	}
}

// A timer replaces that of the same purpose, time and job, and no other.
func TestTimerReplaced(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	first, second := due(noon, "a"), due(noon, "a")
	second.Item.Revision = 8
	c.set(first)
	c.set(second)
	if _, err := c.timers.Get(t.Context(), 1); !errors.Is(err, streams.ErrNoTimer) {
		t.Errorf("the first one: got %v, want ErrNoTimer", err)
	}
	if got := must(c.timers.Get(t.Context(), 2))(t); got.Item.Revision != 8 {
		t.Errorf("got revision %d, want that of the second one", got.Item.Revision)
	}
	for _, other := range []streams.Timer{due(noon.Add(time.Minute), "a"), due(noon, "b"), event(streams.PurposeDeadline, "a")} {
		c.set(other)
	}
	c.holds(4)
}

// Cancelling and deleting take one timer, and find nothing the second time.
func TestTimerEnds(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	for _, local := range []string{"a", "b", "c"} {
		c.set(due(noon, local))
		c.set(event(streams.PurposeDeadline, local))
	}
	for range 2 {
		if err := c.timers.Cancel(t.Context(), due(noon, "a")); err != nil {
			t.Error(err)
		}
		if err := c.timers.Delete(t.Context(), 4); err != nil { // the deadline of b
			t.Error(err)
		}
		c.holds(4)
	}
	for _, gone := range []uint64{1, 4, 99} {
		if _, err := c.timers.Get(t.Context(), gone); !errors.Is(err, streams.ErrNoTimer) {
			t.Errorf("timer %d: got %v, want ErrNoTimer", gone, err)
		}
	}
}

// Once all timers are gone, and the server has given up their block, they are
// still gone.
func TestTimerDeleteFromEmpty(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	c.set(due(noon, "a"))
	for range 3 {
		if err := c.timers.Delete(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}
	c.holds(0)
}
