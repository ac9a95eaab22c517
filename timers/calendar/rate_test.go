package calendar_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/timers/calendar"
)

// A rate ticks at whole multiples from its start, or from the Unix epoch.
func TestRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(100, 100_000_000).Draw(t, "ms")) * time.Millisecond
		r := calendar.Rule{Every: every}
		anchor := time.UnixMilli(0)
		if rapid.Bool().Draw(t, "with a start") {
			anchor = time.UnixMicro(rapid.Int64Range(-1e15, 1e15).Draw(t, "start"))
			r.Start = anchor
			anchor = anchor.Add(time.Millisecond - 1).Truncate(time.Millisecond)
		}
		c := compile(t, r)
		after := time.UnixMicro(rapid.Int64Range(-2e15, 2e15).Draw(t, "after"))
		tick := c.Next(after)
		switch since := tick.Sub(anchor); {
		case !tick.After(after):
			t.Fatalf("the tick after %v is %v", after, tick)
		case since%every != 0:
			t.Fatalf("%v is not a multiple of %v after %v", tick, every, anchor)
		case tick.Sub(after) > every && (!tick.Equal(anchor) || !after.Before(r.Start)):
			t.Fatalf("the tick after %v is %v, later than %v", after, tick, every)
		}
		number := rapid.Int64Range(0, 10_000).Draw(t, "number")
		until := tick.Add(time.Duration(number) * every)
		n, last := c.Count(after, until.Add(every-1))
		if n != number+1 || !last.Equal(until) {
			t.Fatalf("count is %d, %v; want %d, %v", n, last, number+1, until)
		}
		if !c.Has(until) || c.Has(until.Add(time.Millisecond)) || c.Has(tick.Add(time.Microsecond)) {
			t.Fatalf("%v is not the only tick near", until)
		}
	})
}

// window is a daily window, and what it means.
type window struct {
	from, to int64 // minutes; to may be on the next day
	days     part[time.Time]
	every    time.Duration
}

func (w window) rule(zone string) calendar.Rule {
	clock := func(minutes int64) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }
	to := clock(w.to)
	if w.to > 24*60 {
		to = clock(w.to - 24*60)
	}
	return calendar.Rule{Every: w.every, Zone: zone, Window: &calendar.Window{From: clock(w.from), To: to, Days: w.days.text}}
}

// ticks opens and shuts the window as the clock goes.
func (s stretch) windowTicks(w window) (ticks []time.Time) {
	s.from = s.from.Add(-48 * time.Hour)
	var opened time.Time
	s.walk(func(at time.Time, _ int64, fresh []int64) {
		due := func() {
			if !opened.IsZero() && at.Sub(opened)%w.every == 0 {
				ticks = append(ticks, at)
			}
		}
		for _, wall := range fresh {
			if (wall/60-w.to)%(24*60) == 0 {
				due()
				opened = time.Time{}
			}
			date := time.Unix(wall, 0).UTC().Truncate(24 * time.Hour)
			if (wall/60-w.from)%(24*60) == 0 && w.days.has(date) {
				opened = at
				due()
			}
		}
		due()
	})
	ticks = slices.CompactFunc(ticks, time.Time.Equal)
	return slices.DeleteFunc(ticks, func(at time.Time) bool { return at.Before(s.from.Add(48 * time.Hour)) })
}

// A daily window ticks from when the clock comes to its beginning until it has come
// to its end.
func TestWindow(t *testing.T) {
	t.Parallel()
	week := []part[time.Time]{
		{"", anyDay},
		{"mon-fri", weekday(1, 2, 3, 4, 5)},
		{"sat-mon, WED", weekday(6, 0, 1, 3)},
		{"7", weekday(0)},
	}
	rapid.Check(t, func(t *rapid.T) {
		minute := rapid.OneOf(rapid.Int64Range(0, 4*60), rapid.Int64Range(0, 24*60-1), rapid.Int64Range(22*60, 24*60-1))
		w := window{
			from:  minute.Draw(t, "from"),
			to:    rapid.OneOf(minute, rapid.Just(int64(24*60))).Draw(t, "to"),
			days:  rapid.SampledFrom(week).Draw(t, "days"),
			every: time.Duration(rapid.Int64Range(1, 180).Draw(t, "every")) * time.Minute,
		}
		switch {
		case w.to == w.from:
			w.to++
		case w.to < w.from:
			w.to += 24 * 60
		}
		s := drawStretch(t, time.Minute, 14*24*time.Hour)
		check(t, compile(t, w.rule(s.zone.String())), s, s.windowTicks(w))
	})
}

// A list ticks once at each of its times, in their order.
func TestList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from := time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)
		s := stretch{time.UTC, from, from.Add(50 * time.Second), time.Second, from}
		var r calendar.Rule
		var want []time.Time
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 49), 1, 20).Draw(t, "seconds") {
			at := from.Add(time.Duration(n) * time.Second)
			want = append(want, at)
			r.At = append(r.At, at.Add(-time.Duration(rapid.Int64Range(0, 999_999).Draw(t, "ns"))))
		}
		slices.SortFunc(want, time.Time.Compare)
		check(t, compile(t, r), s, slices.CompactFunc(want, time.Time.Equal))
	})
}

// Bounds and excluded dates take ticks away, and change no other.
func TestBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawStretch(t, time.Minute, 7*24*time.Hour)
		e := drawExpression(t, seconds[:1])
		r := calendar.Rule{Zone: s.zone.String()}
		var want []time.Time
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			r.Cron = e.text()
			want = s.ticks(e)
		case 1:
			w := window{from: 20 * 60, to: 26 * 60, days: part[time.Time]{"", anyDay}, every: 20 * time.Minute}
			r = w.rule(s.zone.String())
			want = s.windowTicks(w)
		case 2:
			r.Every = time.Duration(rapid.Int64Range(1, 2000).Draw(t, "every")) * time.Minute
			s.walk(func(at time.Time, _ int64, _ []int64) {
				if at.Unix()%int64(r.Every/time.Second) == 0 {
					want = append(want, at)
				}
			})
		}
		r.Exclude = s.drawDates(t)
		if r.Every == 0 || r.Window != nil { // a rate would begin anew
			r.Start = s.draw(t, "start", 1)
		}
		if r.End = s.draw(t, "end", 1); r.End.Sub(r.Start) < time.Millisecond {
			r.End = r.Start.Add(time.Hour)
		}
		want = slices.DeleteFunc(want, func(at time.Time) bool { return !s.open(r, at) })
		check(t, compile(t, r), s, want)
	})
}

// A fixed delay has no ticks of its own; it may tick whenever it is open.
func TestOpen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawStretch(t, time.Minute, 7*24*time.Hour)
		r := calendar.Rule{Zone: s.zone.String(), Exclude: s.drawDates(t)}
		r.Start, r.End = s.draw(t, "start", time.Minute), s.draw(t, "end", time.Minute)
		if !r.End.After(r.Start) {
			r.End = s.to
		}
		c := compile(t, r)
		at := s.draw(t, "at", time.Minute)
		want := at
		for !want.After(s.to) && !s.open(r, want) {
			want = want.Add(time.Minute)
		}
		if want.After(s.to) {
			want = time.Time{}
		}
		if got := c.Open(at); !got.Equal(want) {
			t.Fatalf("open at %v is %v, want %v", at, got, want)
		}
		if got, want := c.Has(at), s.open(r, at); got != want {
			t.Fatalf("has %v is %v, want %v", at, got, want)
		}
		if n, last := c.Count(s.from, s.to); !c.Next(at).IsZero() || n != 0 || !last.IsZero() {
			t.Fatalf("a fixed delay has ticks: %v, %d, %v", c.Next(at), n, last)
		}
	})
}

// draw returns a moment of a stretch, often one when clocks are about to be set, or
// just were.
func (s stretch) draw(t *rapid.T, name string, step time.Duration) time.Time {
	const near = 2 * time.Hour
	if from := s.odd.Add(-near); from.After(s.from) && from.Add(2*near).Before(s.to) && rapid.Bool().Draw(t, name+" is near") {
		return from.Add(time.Duration(rapid.Int64Range(0, int64(2*near/step)).Draw(t, name)) * step)
	}
	return s.from.Add(time.Duration(rapid.Int64Range(0, int64(s.to.Sub(s.from)/step)-1).Draw(t, name)) * step)
}

// drawDates returns some dates of a stretch.
func (s stretch) drawDates(t *rapid.T) (dates []string) {
	for range rapid.IntRange(0, 5).Draw(t, "dates") {
		dates = append(dates, s.date(s.draw(t, "date", 1)))
	}
	return dates
}

func (s stretch) date(at time.Time) string { return at.In(s.zone).Format(time.DateOnly) }

// open reports whether a rule lets anything tick at a moment.
func (s stretch) open(r calendar.Rule, at time.Time) bool {
	return !at.Before(r.Start) && at.Before(r.End) && !slices.Contains(r.Exclude, s.date(at))
}
