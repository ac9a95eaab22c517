package schedules_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/timers/tick"
)

// cursor stores where a schedule stands, as the owner does.
func (p *process) cursor(schedule string, c tick.Cursor) {
	p.t.Helper()
	entry, err := p.cursors.Get(p.t.Context(), "schedule."+schedule)
	if err != nil {
		_, err = p.cursors.Create(p.t.Context(), "schedule."+schedule, c)
	} else {
		_, err = p.cursors.Update(p.t.Context(), "schedule."+schedule, c, entry.Revision)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestInfo(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) { // it is midnight
		s := hourly
		s.PauseAfterFailures, s.Overlap = 3, spec.Overlap{Policy: spec.OverlapQueue, Limit: 2}
		entry := p.apply(s)
		hour := time.Now().UTC().Truncate(time.Hour)
		at := func(n int) *time.Time { return new(hour.Add(time.Duration(n) * time.Hour)) }
		doc := entry.Value.Schedule
		doc.Revision = entry.Revision
		want := schedules.Info{
			Name: "hourly", Revision: entry.Revision, State: schedules.Active, Target: "job", Kind: "report.build", Queue: "report",
			Definition: &doc, Changed: new(entry.Stored.UTC()), Next: at(1), Running: []string{}, Waiting: []string{},
		}
		is := func(what string) {
			t.Helper()
			if d := cmp.Diff(want, must(p.Get(t.Context(), "hourly"))(t)); d != "" {
				t.Errorf("%s (-want +got):\n%s", what, d)
			}
			list := must(p.List(t.Context(), schedules.ListOptions{}))(t)
			if d := cmp.Diff([]schedules.Info{want}, list); d != "" {
				t.Errorf("%s, in a list (-want +got):\n%s", what, d)
			}
		}
		is("not seen by an owner")

		c := tick.Cursor{
			Life: entry.Stored, Revision: entry.Revision, Since: entry.Stored, Next: *at(3), Number: 3, Made: 1, Failures: 1,
			Holders: []string{"report.hourly=1"}, Queue: []string{"report.hourly=2"}, LastAt: *at(1), LastID: "report.hourly=1",
		}
		p.cursor("hourly", c)
		want.Next, want.Number, want.Made, want.Failures = at(3), 2, 1, 1
		want.Running, want.Waiting, want.LastAt, want.LastJob = c.Holders, c.Queue, at(1), &c.LastID
		is("in use")

		halted := c
		halted.Halted = &tick.Halted{Revision: entry.Revision, Failures: 3}
		p.cursor("hourly", halted)
		want.State, want.Next, want.Note = schedules.Halted, nil, "3 jobs in a row failed"
		is("halted")

		c.Revision--
		p.cursor("hourly", c)
		want.State, want.Next, want.Note = schedules.Active, at(1), ""
		is("behind the definition")

		c.Life = c.Life.Add(-time.Hour)
		p.cursor("hourly", c)
		want.Number, want.Made, want.Failures, want.Running, want.Waiting, want.LastAt, want.LastJob = 0, 0, 0, []string{}, []string{}, nil, nil
		is("of another life")
	})
}

// A schedule has ended when no tick is to come: not while that depends on a job.
func TestEnded(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		now := time.Now()
		is := func(schedule string, state schedules.State, next time.Time) {
			t.Helper()
			info := must(p.Get(t.Context(), schedule))(t)
			if info.State != state || (info.Next == nil) != next.IsZero() || info.Next != nil && !info.Next.Equal(next) {
				t.Errorf("%s is %s, next at %v: want %s at %v", schedule, info.State, info.Next, state, next)
			}
		}
		p.apply(spec.Schedule{Name: "past", At: []time.Time{now.Add(-time.Hour)}, Job: "a.b"})
		is("past", schedules.Ended, time.Time{})
		p.apply(spec.Schedule{Name: "once", At: []time.Time{now.Add(time.Hour)}, Job: "a.b"})
		is("once", schedules.Active, now.Add(time.Hour))
		over := hourly
		over.End = now.Add(-time.Minute)
		p.apply(over)
		is("hourly", schedules.Ended, time.Time{})

		delay := p.apply(spec.Schedule{Name: "delay", After: spec.Duration(time.Minute), Job: "a.b"})
		is("delay", schedules.Active, delay.Stored.Add(time.Minute).Truncate(time.Millisecond))
		c := tick.Cursor{Life: delay.Stored, Revision: delay.Revision, Number: 2, LastID: "a.delay=1"}
		p.cursor("delay", c)
		is("delay", schedules.Active, time.Time{}) // its job goes on
		c.LastEnd = now
		p.cursor("delay", c)
		is("delay", schedules.Ended, time.Time{})
	})
}

// A list is in order, and has pages.
func TestListPages(t *testing.T) {
	t.Parallel()
	p := started(t)
	var want []string
	for n := range 25 {
		s := hourly
		s.Name = fmt.Sprintf("s%02d", (n*7)%25)
		p.apply(s)
		want = append(want, fmt.Sprintf("s%02d", n))
	}
	for _, limit := range []int{0, 1, 4, 10, 25, 100} {
		var got []string
		after := ""
		for {
			page := must(p.List(t.Context(), schedules.ListOptions{After: after, Limit: limit}))(t)
			for _, s := range page {
				after = s.Name
				got = append(got, s.Name)
			}
			if len(page) == 0 || limit == 0 {
				break
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, d)
		}
	}
	if _, err := p.List(t.Context(), schedules.ListOptions{Limit: -1}); err == nil {
		t.Error("a negative limit is taken")
	}
	if page := must(p.List(t.Context(), schedules.ListOptions{After: "s10x", Limit: 1}))(t); len(page) != 1 || page[0].Name != "s11" {
		t.Errorf("after a name that is not there: %v", page)
	}
}
