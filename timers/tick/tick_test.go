package tick

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

func compile(t testing.TB, s spec.Schedule, p Place) *Definition {
	t.Helper()
	if s.Name == "" {
		s.Name = "s"
	}
	if s.Job == "" && s.Broadcast == "" {
		s.Job = "r.b"
	}
	d, err := Compile(s, p)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func stored(at time.Time) Place { return Place{Revision: 1, Stored: at, Created: at, Since: at} }

// Of a gap, those ticks run that somebody finds who goes through all of them.
func TestMisfiresByBruteForce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := spec.Schedule{Misfire: spec.Misfire{Policy: rapid.SampledFrom([]string{"", "once", "skip", "all"}).Draw(r, "policy")}}
		switch rapid.IntRange(0, 2).Draw(r, "calendar") {
		case 0:
			s.Every = spec.Duration(rapid.IntRange(100, 100_000).Draw(r, "every")) * spec.Duration(time.Millisecond)
		case 1:
			s.Cron = rapid.SampledFrom([]string{"* * * * *", "*/7 8-9 * * *", "0 0 1 * *", "30 2 * * *"}).Draw(r, "cron")
		case 2:
			s.Every = spec.Duration(500 * time.Millisecond)
			s.Window = &spec.Window{From: "09:00", To: "09:00:30"}
		}
		if s.Misfire.Policy == spec.MisfireAll {
			s.Misfire.Limit = rapid.IntRange(0, 150).Draw(r, "limit")
			s.Misfire.Window = spec.Duration(rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour, 50 * time.Hour}).Draw(r, "window"))
		}
		begin := worldStart.Add(time.Duration(rapid.IntRange(0, 1e9).Draw(r, "begin")))
		d := compile(t, s, stored(begin))
		gap := rapid.IntRange(0, 3600).Draw(r, "gap")
		if d.Every == 0 || d.Window != nil {
			gap *= 200
		}
		now := begin.Add(time.Duration(gap)*time.Second + time.Duration(rapid.IntRange(0, 1e9).Draw(r, "now")))

		w := &work{d: d, now: now, c: Cursor{Number: 1}}
		w.plan(begin)
		if w.c.Next.IsZero() || !w.isMisfire() {
			return
		}
		got := w.find()
		var late, run []time.Time
		for at := w.c.Next; now.Sub(at) > time.Minute; at = d.Next(at) {
			late = append(late, at)
			if window := time.Duration(s.Misfire.Window); window == 0 || now.Sub(at) <= window {
				run = append(run, at)
			}
		}
		limit := map[string]int{"": 1, spec.MisfireOnce: 1, spec.MisfireSkip: 0, spec.MisfireAll: s.Misfire.Limit}[s.Misfire.Policy]
		if limit == 0 && s.Misfire.Policy == spec.MisfireAll {
			limit = 100
		}
		run = run[max(0, len(run)-limit):]
		var found []time.Time
		for _, at := range late {
			if !at.Before(got.Run) && at.Before(got.Until) {
				found = append(found, at)
			}
		}
		if diff := cmp.Diff(run, found, cmpopts.EquateEmpty()); diff != "" {
			r.Fatalf("%v: of %d that are late want (-), got (+):\n%s", now, len(late), diff)
		}
		if next := d.Next(late[len(late)-1]); !next.IsZero() && next.Before(got.Until) {
			r.Fatalf("%v is said to be late: until %v", next, got.Until)
		}
	})
}

// What was found too late is decided once, however long it takes to catch up.
func TestCatchingUp(t *testing.T) {
	t.Parallel()
	s := spec.Schedule{Every: spec.Duration(time.Second), Misfire: spec.Misfire{Policy: spec.MisfireAll, Limit: 400}}
	d := compile(t, s, stored(worldStart))
	c, found := d.Advance(Cursor{}, Facts{Now: worldStart}).Cursor, worldStart.Add(10*time.Minute)
	made, declined := 0, 0
	for now := found; c.Next.Before(found); now = now.Add(20 * time.Second) {
		step := d.Advance(c, Facts{Now: now})
		if c = step.Cursor; len(step.Acts) == 0 {
			t.Fatalf("nothing happens at %v", c.Next)
		}
		for _, a := range step.Acts {
			switch {
			case a.Do == Make && a.At.Before(found.Add(-time.Minute)):
				made++
			case a.Do == Decline && a.More != nil:
				declined += 1 + int(a.More.Count)
			case a.Do == Decline && a.At.Before(found.Add(-time.Minute)):
				declined++
			}
		}
	}
	if made != 400 || declined != 10*60-60-1-400 {
		t.Errorf("%d of those that were late were made, and %d declined", made, declined)
	}
}

// An hour of ticks each 100 ms while a job hangs: a hundred records, and one a minute.
func TestRecordsOfABurst(t *testing.T) {
	t.Parallel()
	d := compile(t, spec.Schedule{Every: spec.Duration(100 * time.Millisecond), Overlap: spec.Overlap{Policy: spec.OverlapSkip}}, stored(worldStart))
	c, now, records, ticks := Cursor{}, worldStart, 0, int64(0)
	for now.Before(worldStart.Add(time.Hour)) {
		step := d.Advance(c, Facts{Now: now})
		c = step.Cursor
		for _, a := range step.Acts {
			records++
			ticks++
			if a.More != nil {
				ticks += a.More.Count
			}
		}
		if !step.Changed {
			now = step.Due
		}
	}
	if records < 150 || records > 165 {
		t.Errorf("there are %d records", records)
	}
	if ticks < 35_300 || ticks > 36_000 {
		t.Errorf("they are for %d ticks, want some 36000 and those of the last minute later", ticks)
	}
}

func TestDeclines(t *testing.T) {
	t.Parallel()
	yes := true
	at := worldStart.Add(time.Hour)
	place := stored(worldStart)
	hourly := spec.Schedule{Every: spec.Duration(time.Hour)}
	change := func(f func(*spec.Schedule)) *Definition {
		s := hourly
		f(&s)
		return compile(t, s, place)
	}
	later := stored(at)
	for name, c := range map[string]struct {
		d    *Definition
		want string
	}{
		"as it was":      {compile(t, hourly, place), ""},
		"other input":    {change(func(s *spec.Schedule) { s.Input = json.RawMessage(`1`) }), ""},
		"deleted":        {nil, "changed: schedule s was deleted"},
		"made anew":      {compile(t, hourly, later), "changed: schedule s was deleted, and made anew"},
		"paused":         {change(func(s *spec.Schedule) { s.Paused = &yes }), "paused: schedule s is paused"},
		"with a note":    {change(func(s *spec.Schedule) { s.Paused, s.Note = &yes, "why" }), "paused: schedule s is paused: why"},
		"another queue":  {change(func(s *spec.Schedule) { s.Queue = "q" }), "changed: schedule s makes its jobs in queue q now"},
		"no such tick":   {change(func(s *spec.Schedule) { s.Every *= 2; s.Start = at.Add(time.Minute) }), "changed: schedule s has no tick at 2027-01-01T01:00:00Z any more"},
		"a fixed delay":  {change(func(s *spec.Schedule) { s.After, s.Every = s.Every, 0 }), ""},
		"it is excluded": {change(func(s *spec.Schedule) { s.Exclude = []string{"2027-01-01"} }), "changed: schedule s has no tick at 2027-01-01T01:00:00Z any more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, why := c.d.Declines(machine.Job{ID: "r.s=1", Tick: &machine.Tick{Schedule: "s", At: at}})
			if got := strings.TrimSuffix(code+": "+why, ": "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// The largest cursor that there can be is far from what a key can hold.
func TestCursorIsBounded(t *testing.T) {
	t.Parallel()
	yes := true
	s := spec.Schedule{
		Name: strings.Repeat("n", 64), Queue: strings.Repeat("q", 64), Every: spec.Duration(100 * time.Millisecond),
		Overlap: spec.Overlap{Policy: spec.OverlapQueue, Limit: 100}, PauseAfterFailures: 1000,
	}
	d := compile(t, s, stored(worldStart))
	c := Cursor{}
	most := 0
	look := func(d *Definition, f Facts) {
		c = d.Advance(c, f).Cursor
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, len(data))
	}
	look(d, Facts{Now: worldStart})
	for i := range 10 {
		look(d, Facts{Now: worldStart.Add(time.Duration(i) * 50 * time.Second)})
	}
	s.Paused, s.Note = &yes, strings.Repeat("<", 1000)
	now := worldStart.Add(time.Hour)
	look(compile(t, s, Place{Revision: 2, Stored: now, Created: worldStart, Since: worldStart}), Facts{Now: now})
	t.Logf("the largest has %d bytes", most)
	if len(c.Queue) != 100 || len(c.Doing) < 100 || len(c.Open) != 100 {
		t.Errorf("%d wait, %d acts, %d open: this is not the largest", len(c.Queue), len(c.Doing), len(c.Open))
	}
	if most > 300<<10 {
		t.Errorf("the largest has %d bytes", most)
	}
}

// An old definition decides nothing.
func TestOldDefinition(t *testing.T) {
	t.Parallel()
	d := compile(t, spec.Schedule{Every: spec.Duration(time.Second)}, stored(worldStart))
	c := d.Advance(Cursor{}, Facts{Now: worldStart}).Cursor
	c.Revision = 2
	step := d.Advance(c, Facts{Now: worldStart.Add(10 * time.Second)})
	if step.Changed || len(step.Acts) > 0 || step.Due.IsZero() {
		t.Errorf("it decides %+v", step)
	}
}

// Who was told late of an edit may have gone on by the old calendar. The ticks of the
// new one are made all the same; what was made already is found there.
func TestEditIsSeenLate(t *testing.T) {
	t.Parallel()
	s := spec.Schedule{Every: spec.Duration(10 * time.Second)}
	c, now := Cursor{}, worldStart
	for range 2 {
		c = compile(t, s, stored(worldStart)).Advance(c, Facts{Now: now}).Cursor
		now = worldStart.Add(10 * time.Second)
	}
	s.Every /= 5
	edited := worldStart.Add(5 * time.Second)
	d := compile(t, s, Place{Revision: 2, Stored: edited, Created: worldStart, Since: edited})
	step := d.Advance(c, Facts{Now: now})
	var made []string
	for _, a := range step.Acts {
		made = append(made, a.ID)
	}
	want := []string{"r.s=1798761606000", "r.s=1798761608000", "r.s=1798761610000"}
	if diff := cmp.Diff(want, made); diff != "" || !step.Cursor.Next.Equal(now.Add(2*time.Second)) || step.Plain {
		t.Errorf("next is %v, made are, want (-), got (+):\n%s", step.Cursor.Next, diff)
	}
}

// A step is plain if it is one tick that the stored cursor names, and nothing counts
// what becomes of it.
func TestPlain(t *testing.T) {
	t.Parallel()
	every := spec.Duration(10 * time.Second)
	for name, c := range map[string]struct {
		schedule spec.Schedule
		after    time.Duration
		want     bool
	}{
		"on time":       {spec.Schedule{Every: every}, 10 * time.Second, true},
		"a minute late": {spec.Schedule{Every: every * 10}, 160 * time.Second, true},
		"too late":      {spec.Schedule{Every: every * 10}, 161 * time.Second, false},
		"two of them":   {spec.Schedule{Every: every}, 20 * time.Second, false},
		"a fixed delay": {spec.Schedule{After: every}, time.Hour, true},
		"turns":         {spec.Schedule{Every: every, Overlap: spec.Overlap{Policy: spec.OverlapSkip}}, 10 * time.Second, false},
		"runs":          {spec.Schedule{Every: every, MaxRuns: 3}, 10 * time.Second, false},
		"failures":      {spec.Schedule{Every: every, PauseAfterFailures: 3}, 10 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := compile(t, c.schedule, stored(time.Unix(0, 0)))
			cursor := Cursor{Life: d.Created, Revision: 1, Since: d.Since, Past: d.Since, Number: 1}
			cursor.Next = time.Unix(0, 0).UTC().Add(time.Duration(max(d.Every, d.After)))
			cursor.ID = d.ID(cursor.Next, "")
			step := d.Advance(cursor, Facts{Now: time.Unix(0, 0).Add(c.after)})
			if step.Plain != c.want || step.Acts[0].Do != Make || step.Plain == (len(step.Cursor.Doing) > 0) {
				t.Errorf("plain is %t, want %t, with %v", step.Plain, c.want, step.Acts)
			}
		})
	}
}
