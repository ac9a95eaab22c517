package tick

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/spec"
)

// A year in Berlin, as timers/calendar has its ticks: an owner that comes when it is due,
// or up to a minute later, makes each of them, once, under the ID of its time, and each has
// the number that it has in the year.
func TestYear(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var hourly, nightly []time.Time
	for at := begin; at.Year() == 2026; at = at.Add(time.Hour) {
		hourly = append(hourly, at)
	}
	for day := begin; day.Year() == 2026; day = day.AddDate(0, 0, 1) {
		after := 90 * time.Minute
		switch date := day.Format("01-02"); {
		case date == "03-29":
			after = time.Hour // clocks go from two to three
		case date > "03-29" && date <= "10-25":
			after = 30 * time.Minute // the last time it comes twice, and this is the first
		}
		nightly = append(nightly, day.Add(after))
	}
	for cron, want := range map[string][]time.Time{"0 * * * *": hourly, "30 2 * * *": nightly} {
		w := newWorld()
		w.now = begin.Add(-time.Minute)
		if err := w.define(spec.Schedule{Name: "s", Job: "r.b", Cron: cron, Zone: "Europe/Berlin"}); err != nil {
			t.Fatal(err)
		}
		var got []time.Time
		for w.now.Year() <= 2026 {
			c, revision := w.load()
			step := w.def.Advance(c, Facts{Now: w.now})
			for _, a := range step.Acts {
				w.create(w.def.Job(a, w.now))
			}
			if _, ok := w.save(step.Cursor, revision); !ok {
				t.Fatalf("the cursor is not at revision %d", revision)
			}
			late := time.Duration(len(w.ids)*7919%60_000) * time.Millisecond
			if w.now = step.Due.Add(late); step.Due.IsZero() {
				t.Fatalf("%s is over after %d ticks", cron, len(w.ids))
			}
		}
		for i, id := range w.ids {
			j := w.jobs[id].job
			got = append(got, j.Tick.At)
			if j.Tick.Number != int64(i)+1 || j.State.Final() || id != w.def.ID(j.Tick.At, "") {
				t.Errorf("%s: tick %d is %s, %s: %+v", cron, i+1, id, j.State, j.Tick)
			}
		}
		if d := cmp.Diff(want, got); d != "" || len(w.trouble) > 0 {
			t.Errorf("%s (-want +got):\n%s%v", cron, d, w.trouble)
		}
	}
}
