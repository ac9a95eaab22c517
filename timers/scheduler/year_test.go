package scheduler_test

import (
	"flag"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

var days = flag.Int("days", 2, "how many days TestYear lives through, from 25 March on")

// Through the nights in which clocks change in Berlin, an owner makes each tick of an
// hourly schedule and of one at half past two, as documented, within a second of its time,
// and no other.
func TestYear(t *testing.T) {
	dir := t.TempDir()
	natstest.Bubble(t, func(t *testing.T, idle *server.Server) {
		natstest.Stop(idle) // the days without a server are short
		begin := time.Date(2000, 3, 25, 0, 15, 0, 0, time.UTC)
		time.Sleep(time.Until(begin))
		w := newWorld(t, natstest.Start(t, dir))
		w.ownFor("patient", time.Hour, nil) // or its renewals are most of the work
		w.apply(spec.Schedule{Name: "hourly", Cron: "0 * * * *", Zone: "Europe/Berlin"})
		w.apply(spec.Schedule{Name: "nightly", Cron: "30 2 * * *", Zone: "Europe/Berlin"})
		end := begin.AddDate(0, 0, *days)
		time.Sleep(time.Until(end))

		var hourly, nightly []time.Time
		for at := begin.Truncate(time.Hour).Add(time.Hour); at.Before(end); at = at.Add(time.Hour) {
			hourly = append(hourly, at)
		}
		for day := begin.Truncate(24 * time.Hour); day.Before(end); day = day.AddDate(0, 0, 1) {
			if at := day.Add(halfPastTwo(day)); at.After(begin) && at.Before(end) {
				nightly = append(nightly, at)
			}
		}
		w.ticked("hourly", hourly)
		w.ticked("nightly", nightly)
	})
}

// halfPastTwo returns how long after midnight in UTC it is half past two in Berlin.
func halfPastTwo(day time.Time) time.Duration {
	switch date := day.Format("0102"); {
	case day.Format(time.DateOnly) == "2000-03-26" || day.Format(time.DateOnly) == "2001-03-25":
		return time.Hour // clocks go from two to three
	case day.Year() == 2000 && date > "0326" && date <= "1029", day.Year() == 2001 && date > "0325":
		return 30 * time.Minute // the last of them is the first of two
	}
	return 90 * time.Minute
}

// ticked fails the test unless a schedule has made jobs for these ticks, in time.
func (w *world) ticked(name string, want []time.Time) {
	w.Helper()
	var got []time.Time
	for i, j := range w.ticks(name) {
		got = append(got, j.Tick.At)
		if late := j.Created.Sub(j.Tick.At); late < 0 || late > time.Second || j.State != machine.Pending || j.Tick.Number != int64(i)+1 {
			w.Errorf("%s was made %v late, and is %s: %+v", j.ID, late, j.State, j.Tick)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		w.Errorf("the ticks of %s (-want +got):\n%s", name, d)
	}
}
