package schedules_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/timers/tick"
)

func date(t *testing.T, text string) time.Time {
	t.Helper()
	return must(time.Parse(time.RFC3339, text))(t)
}

// lines writes ticks, one a line.
func lines(p schedules.Preview) (all []string) {
	for _, t := range p.Ticks {
		line := t.Local.Format("2006-01-02T15:04:05 ") + t.Zone + " " + t.At.Format("15:04:05Z07:00")
		if !t.NextAttempt.Equal(t.At) {
			line += " +" + t.NextAttempt.Sub(t.At).String()
		}
		if t.Shift != "" {
			line += " " + t.Shift
		}
		all = append(all, line)
	}
	return all
}

// The ticks to come follow from the definition, and tell when the clock changes.
func TestForesee(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		s     spec.Schedule
		after string
		want  []string
	}{
		{"spring", spec.Schedule{Cron: "30 2 * * *", Zone: "Europe/Berlin"}, "2027-03-27T00:00:00Z", []string{
			"2027-03-27T02:30:00 CET 01:30:00Z",
			"2027-03-28T03:00:00 CEST 01:00:00Z clocks go forward from 02:00 to 03:00",
			"2027-03-29T02:30:00 CEST 00:30:00Z",
		}},
		{"autumn", spec.Schedule{Cron: "30 2 * * *", Zone: "Europe/Berlin"}, "2027-10-30T00:00:00Z", []string{
			"2027-10-30T02:30:00 CEST 00:30:00Z",
			"2027-10-31T02:30:00 CEST 00:30:00Z clocks go back from 03:00 to 02:00",
			"2027-11-01T02:30:00 CET 01:30:00Z",
		}},
		{"midnight", spec.Schedule{Cron: "0 12 * * *", Zone: "America/Sao_Paulo"}, "2018-11-03T16:00:00Z", []string{
			"2018-11-04T12:00:00 -02 14:00:00Z clocks go forward from 00:00 to 01:00",
			"2018-11-05T12:00:00 -02 14:00:00Z",
		}},
		{"jitter", spec.Schedule{Every: spec.Duration(time.Hour), Jitter: spec.Duration(time.Minute)}, "2027-01-01T00:00:00Z", []string{
			"2027-01-01T01:00:00 UTC 01:00:00Z +25.703s",
		}},
		{"runs", spec.Schedule{Every: spec.Duration(time.Hour), MaxRuns: 2}, "2027-01-01T00:00:00Z", []string{
			"2027-01-01T01:00:00 UTC 01:00:00Z", "2027-01-01T02:00:00 UTC 02:00:00Z",
		}},
		{"end", spec.Schedule{At: []time.Time{time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)}}, "2027-01-02T00:00:00Z", nil},
		{"delay", spec.Schedule{After: spec.Duration(time.Hour)}, "2027-01-01T00:00:00Z", []string{"2027-01-01T01:00:00 UTC 01:00:00Z"}},
	} {
		c.s.Name, c.s.Job = "a", "a.b"
		n := max(len(c.want), 1)
		if c.s.MaxRuns > 0 || c.s.After > 0 {
			n = 5
		}
		p := must(schedules.Foresee(c.s, date(t, c.after), n))(t)
		if d := cmp.Diff(c.want, lines(p)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
		if (p.Note != "") != (c.s.After > 0) {
			t.Errorf("%s: the note is %q", c.name, p.Note)
		}
	}
	for _, n := range []int{0, -1, 100_000} {
		if _, err := schedules.Foresee(hourly, time.Now(), n); err == nil {
			t.Errorf("%d ticks are taken", n)
		}
	}
	if _, err := schedules.Foresee(spec.Schedule{Name: "a"}, time.Now(), 1); err == nil {
		t.Error("a definition without anything is taken")
	}
}

// While the job of a fixed delay goes on, nobody knows its next tick.
func TestNextOfDelay(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		entry := p.apply(spec.Schedule{Name: "delay", After: spec.Duration(time.Minute), Job: "a.b"})
		c := tick.Cursor{Life: entry.Stored, Revision: entry.Revision, Number: 2, LastID: "a.delay=1"}
		p.cursor("delay", c)
		want := schedules.Preview{Ticks: []schedules.Tick{}, Note: "the next tick is 1m after the end of a.delay=1, which goes on"}
		if d := cmp.Diff(want, must(p.Next(t.Context(), "delay", 4))(t)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		c.LastEnd = time.Now()
		c.Next = c.LastEnd.Add(time.Minute)
		p.cursor("delay", c)
		if got := must(p.Next(t.Context(), "delay", 4))(t); len(got.Ticks) != 1 || !got.Ticks[0].At.Equal(c.Next) {
			t.Errorf("its job has ended, and to come is %+v, want %v", got.Ticks, c.Next)
		}
	})
}

// The ticks of a stored schedule begin with the one that the owner has not made yet,
// and are as many as there may be.
func TestNext(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		s := hourly
		s.MaxRuns = 5
		entry := p.apply(s)
		is := func(note string, want ...string) {
			t.Helper()
			got := must(p.Next(t.Context(), "hourly", 4))(t)
			if d := cmp.Diff(want, lines(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if !strings.Contains(got.Note, note) {
				t.Errorf("the note is %q, want %q", got.Note, note)
			}
		}
		line := func(hour string) string { return "2000-01-01T" + hour + ":00:00 UTC " + hour + ":00:00Z" }
		is("", line("01"), line("02"), line("03"), line("04"))

		time.Sleep(2*time.Hour + time.Second) // and nobody is owner
		c := tick.Cursor{Life: entry.Stored, Revision: entry.Revision, Next: entry.Stored.Truncate(time.Hour).Add(time.Hour), Number: 3, Made: 2}
		p.cursor("hourly", c)
		is("", line("01"), line("02"), line("03"))

		must(p.Pause(t.Context(), "hourly", schedules.EditOptions{}))(t)
		is("paused", line("03"), line("04"), line("05"))
	})
}
