package streams_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
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
	later := due(noon.Add(time.Second), "c") // in the same minute
	c.set(due(noon, "c"))
	c.set(later)
	if err := c.timers.Cancel(t.Context(), due(noon, "c")); err != nil {
		t.Error(err)
	}
	c.holds(2)
	if err := c.timers.Cancel(t.Context(), later); err != nil {
		t.Error(err)
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

// Timers are set without waiting, and each outcome is told once.
func TestTimerSetAsync(t *testing.T) {
	t.Parallel()
	const many = 1000
	c := newClockwork(t)
	outcomes := make(chan error, many+1)
	for i := range many {
		c.timers.SetAsync(due(noon, fmt.Sprint(i)), func(err error) { outcomes <- err })
	}
	for range many {
		if err := <-outcomes; err != nil {
			t.Fatal(err)
		}
	}
	if len(outcomes) != 0 {
		t.Errorf("%d outcomes too many", len(outcomes))
	}
	c.holds(many)
	c.nc.Close()
	c.timers.SetAsync(due(noon, "a"), func(err error) { outcomes <- err })
	oneLine(t, <-outcomes, "streams: set timer due of mail.a")
}

// What is no timer is refused, whatever is to be done with it.
func TestTimerInvalid(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	for _, test := range []struct {
		timer streams.Timer
		want  string
	}{
		{streams.Timer{At: noon, Queue: "mail", Local: "a"}, `purpose "" is none`},
		{streams.Timer{Purpose: "*", At: noon, Queue: "mail", Local: "a"}, `purpose "*" is none`},
		{streams.Timer{Purpose: streams.PurposeDue, Queue: "mail", Local: "a"}, "is before 1970"},
	} {
		oneLine(t, c.timers.Set(t.Context(), test.timer), "streams: set timer ", test.want)
		oneLine(t, c.timers.Cancel(t.Context(), test.timer), "streams: cancel timer ", test.want)
		outcome := make(chan error, 1)
		c.timers.SetAsync(test.timer, func(err error) { outcome <- err })
		oneLine(t, <-outcome, "streams: set timer ", test.want)
	}
	c.holds(0)
}

// What others, or newer builds, store among the timers is told as an error, and
// is not missing.
func TestForeignTimers(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	js := open(t, c.nc)
	for i, test := range []struct {
		change func(*nats.Msg)
		want   string // nothing: it is a timer
	}{
		{func(*nats.Msg) {}, ""},
		{func(m *nats.Msg) { m.Header.Set("X-Unknown", "x"); m.Header.Set("Mr-Type", "timer/1") }, ""},
		{func(m *nats.Msg) {
			m.Subject = ns.TimerSubject(noon, "due", "mail", "another-minute")
			m.Header.Set("Mr-Due", "1")
		}, ""},
		{func(m *nats.Msg) { m.Header = nil }, `want "timer"`},
		{func(m *nats.Msg) { m.Header.Set("Status", "404") }, ""},
		{func(m *nats.Msg) { m.Header.Set("Mr-Type", "timer/2") }, "upgrade this process"},
		{func(m *nats.Msg) { m.Header.Set("Mr-Type", "item/1") }, `want "timer"`},
		{func(m *nats.Msg) { m.Header.Del("Mr-Due") }, `due time "" is no number`},
		{func(m *nats.Msg) { m.Header.Set("Mr-Due", "soon") }, `due time "soon" is no number`},
		{func(m *nats.Msg) { m.Header.Set("Mr-Revision", "x") }, `revision "x" is no number`},
		{func(m *nats.Msg) { m.Subject = ns.TimerSubject(noon, "later", "mail", "a") }, `no purpose "later": upgrade this process`},
		{func(m *nats.Msg) { m.Subject += ".b" }, "is no subject of a timer"},
		{func(m *nats.Msg) { m.Subject = "mr.default.timer.1" }, "is no subject of a timer"},
	} {
		msg := must(c.timers.Message(due(noon, fmt.Sprint(i))))(t)
		test.change(msg)
		sequence := must(js.PublishMsg(t.Context(), msg))(t).Sequence
		timer, err := c.timers.Get(t.Context(), sequence)
		switch {
		case test.want != "":
			oneLine(t, err, fmt.Sprint("streams: get timer ", sequence), test.want)
		case err != nil:
			t.Error(err)
		case timer.Queue != "mail" || string(timer.Item.Record) != fmt.Sprint("record of ", i):
			t.Errorf("got %+v", timer)
		}
		if errors.Is(err, streams.ErrNoTimer) {
			t.Errorf("message %d is there, and is reported missing", sequence)
		}
	}
}

// What is stored of a timer is read again, whatever it is.
func FuzzTimer(f *testing.F) {
	timers := must(streams.NewTimers(ns, nil))(f)
	f.Add("due", int64(1), "mail", "a=1", []byte("{}"), uint64(7), "high")
	f.Add("expiry", int64(1<<60), "m-1", "a", []byte(nil), uint64(0), "")
	f.Fuzz(func(t *testing.T, purpose string, nanos int64, queue, local string, record []byte, revision uint64, class string) {
		want := streams.Timer{Purpose: streams.Purpose(purpose), At: time.Unix(0, nanos).UTC(), Queue: queue, Local: local}
		if want.Purpose == streams.PurposeDue {
			want.Item = streams.Item{Queue: queue, Local: local, Class: class, Record: record, Revision: revision}
		}
		msg, err := timers.Message(want)
		if err != nil || strings.ContainsAny(queue+local, ".") {
			return
		}
		got, err := timers.Parse(msg)
		if err != nil {
			t.Fatal(err)
		}
		if late := got.At.Sub(want.At); late < 0 || late >= time.Millisecond {
			t.Errorf("due at %v, want %v", got.At, want.At)
		}
		if at, ok := streams.TimerAt(msg.Header); !ok || !at.Equal(got.At) {
			t.Errorf("due at %v, and by its headers at %v", got.At, at)
		}
		want.At = got.At
		if want.Purpose == streams.PurposeDue {
			want.Item.Due = got.At
			if class != streams.High && class != streams.Low {
				want.Item.Class = ""
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("timer (-want +got):\n%s", d)
		}
	})
}

// Whatever lies in the stream of timers, it is read as a timer of a purpose that
// is known, or there is an error of one line.
func FuzzParseTimer(f *testing.F) {
	timers := must(streams.NewTimers(ns, nil))(f)
	for _, wire := range []string{
		"Mr-Type: timer/1\r\nMr-Due: 1700000000000\r\nMr-Revision: 7\r\n", "Mr-Type: timer/1\r\nMr-Due: -1\r\n",
		"Mr-Type: timer/1\r\nMr-Due: 99999999999999999999\r\n", "Mr-Due: 1\r\nMr-Due: 2\r\n", "",
	} {
		f.Add("mr.default.timer.1.due.mail.a", []byte(wire), []byte("body"))
		f.Add("mr.default.timer.x.expiry..", []byte(wire), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, subject string, wire, body []byte) {
		h, err := nats.DecodeHeadersMsg(fmt.Appendf(nil, "NATS/1.0\r\n%s\r\n", wire))
		if err != nil {
			return
		}
		timer, err := timers.Parse(&nats.Msg{Subject: subject, Header: h, Data: body})
		if err != nil {
			oneLine(t, err)
			return
		}
		if at, ok := streams.TimerAt(h); !ok || !at.Equal(timer.At) {
			t.Errorf("due at %v, and by its headers at %v", timer.At, at)
		}
		switch item := timer.Item; {
		case timer.Purpose != streams.PurposeDue:
			if d := cmp.Diff(streams.Item{}, item); d != "" {
				t.Errorf("an event has an item:\n%s", d)
			}
		case item.Queue != timer.Queue || item.Local != timer.Local || !item.Due.Equal(timer.At) || !bytes.Equal(item.Record, body):
			t.Errorf("got %+v", timer)
		}
	})
}
