package calendar_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/timers/calendar"
)

// What follows finds ticks by looking at each minute, or second, and by asking of
// each date what the words of an expression mean. It knows nothing of the package.

// a part is a field of an expression: what is written, and what it means.
type part[T any] struct {
	text string
	has  func(T) bool
}

var (
	seconds = []part[int]{
		{"0", in(0)}, {"*", within(0, 59, 1)}, {"*/15", within(0, 59, 15)}, {"7,20-30/5", in(7, 20, 25, 30)},
	}
	minutes = []part[int]{
		{"0", in(0)},
		{"30", in(30)},
		{"*", within(0, 59, 1)},
		{"*/10", within(0, 59, 10)},
		{"5-20/5,59", in(5, 10, 15, 20, 59)},
		{"50/3", in(50, 53, 56, 59)},
	}
	hours = []part[int]{
		{"*", within(0, 23, 1)},
		{"2", in(2)},
		{"0", in(0)},
		{"3", in(3)},
		{"0,23", in(0, 23)},
		{"*/2", within(0, 23, 2)},
		{"1-3", in(1, 2, 3)},
		{"0-23", within(0, 23, 1)},
		{"22/1", in(22, 23)},
	}
	months = []part[int]{
		{"*", within(1, 12, 1)}, {"feb,OCT", in(2, 10)}, {"1-12/2", within(1, 12, 2)}, {"mar-nov", within(3, 11, 1)}, {"12", in(12)},
	}
	daysOfMonth = []part[time.Time]{
		{"*", anyDay},
		{"?", anyDay},
		{"1", day(1)},
		{"28-31", day(28, 29, 30, 31)},
		{"*/2", func(d time.Time) bool { return d.Day()%2 == 1 }},
		{"L", last},
		{"L-3", func(d time.Time) bool { return last(d.AddDate(0, 0, 3)) }},
		{"l,15", func(d time.Time) bool { return last(d) || d.Day() == 15 }},
		{"LW", func(d time.Time) bool {
			return worked(d) && !slices.ContainsFunc(rest(d), worked)
		}},
		{"1W", near(1)},
		{"15w", near(15)},
		{"30W", near(30)},
		{"31W", near(31)},
	}
	daysOfWeek = []part[time.Time]{
		{"*", anyDay},
		{"?", anyDay},
		{"0", weekday(0)},
		{"7", weekday(0)},
		{"mon-fri", weekday(1, 2, 3, 4, 5)},
		{"5-7", weekday(5, 6, 0)},
		{"Sat-Tue", weekday(6, 0, 1, 2)},
		{"mon/2", weekday(1, 3, 5)},
		{"*/3", weekday(0, 3, 6)},
		{"friL", func(d time.Time) bool { return d.Weekday() == 5 && d.AddDate(0, 0, 7).Month() != d.Month() }},
		{"7L", func(d time.Time) bool { return d.Weekday() == 0 && d.AddDate(0, 0, 7).Month() != d.Month() }},
		{"mon#2", func(d time.Time) bool { return d.Weekday() == 1 && d.Day() > 7 && d.Day() <= 14 }},
		{"2#5,sat", func(d time.Time) bool { return d.Weekday() == 2 && d.Day() > 28 || d.Weekday() == 6 }},
	}
)

func in(values ...int) func(int) bool { return func(v int) bool { return slices.Contains(values, v) } }

func within(least, most, step int) func(int) bool {
	return func(v int) bool { return v >= least && v <= most && (v-least)%step == 0 }
}
func anyDay(time.Time) bool { return true }
func day(days ...int) func(time.Time) bool {
	return func(d time.Time) bool { return slices.Contains(days, d.Day()) }
}

func weekday(days ...time.Weekday) func(time.Time) bool {
	return func(d time.Time) bool { return slices.Contains(days, d.Weekday()) }
}
func last(d time.Time) bool   { return d.AddDate(0, 0, 1).Day() == 1 }
func worked(d time.Time) bool { return d.Weekday() != 0 && d.Weekday() != 6 }

// rest are the days of the month after d.
func rest(d time.Time) (days []time.Time) {
	for next := d.AddDate(0, 0, 1); next.Month() == d.Month(); next = next.AddDate(0, 0, 1) {
		days = append(days, next)
	}
	return days
}

// near finds the working day of the month that is nearest to a day of it.
func near(n int) func(time.Time) bool {
	return func(d time.Time) bool {
		meant := d.AddDate(0, 0, n-d.Day())
		if meant.Month() != d.Month() {
			return false
		}
		for _, distance := range []int{0, -1, 1, -2, 2} {
			if found := meant.AddDate(0, 0, distance); found.Month() == d.Month() && worked(found) {
				return found.Equal(d)
			}
		}
		panic("there is one")
	}
}

// expression is a cron expression, and what it means.
type expression struct {
	second, minute, hour, month part[int]
	ofMonth, ofWeek             part[time.Time]
}

func (e expression) text() string {
	return strings.Join([]string{e.second.text, e.minute.text, e.hour.text, e.ofMonth.text, e.month.text, e.ofWeek.text}, " ")
}

// means reports whether a wall clock time, in seconds, is one of those meant.
func (e expression) means(wall int64) bool {
	if !e.minute.has(int(wall / 60 % 60)) {
		return false
	}
	at := time.Unix(wall, 0).UTC()
	if !e.second.has(at.Second()) || !e.hour.has(at.Hour()) || !e.month.has(int(at.Month())) {
		return false
	}
	date := at.Truncate(24 * time.Hour)
	if strings.HasPrefix(e.ofMonth.text, "*") || strings.HasPrefix(e.ofWeek.text, "*") || e.ofMonth.text == "?" || e.ofWeek.text == "?" {
		return e.ofMonth.has(date) && e.ofWeek.has(date)
	}
	return e.ofMonth.has(date) || e.ofWeek.has(date)
}

// A stretch is some time in a zone.
type stretch struct {
	zone     *time.Location
	from, to time.Time
	step     time.Duration
	odd      time.Time // when clocks are set
}

// walk calls see for each step of a stretch, with the wall clock time that is shown
// and all those that come up for the first time, in seconds. Nothing was shown two
// days before that is shown again.
func (s stretch) walk(see func(at time.Time, shown int64, fresh []int64)) {
	step := int64(s.step / time.Second)
	var most int64
	for at := s.from.Add(-72 * time.Hour); at.Before(s.to); at = at.Add(s.step) {
		_, offset := at.In(s.zone).Zone()
		shown := at.Unix() + int64(offset)
		var fresh []int64
		for wall := most + step; most != 0 && wall <= shown; wall += step {
			fresh = append(fresh, wall)
		}
		most = max(most, shown)
		if !at.Before(s.from) {
			see(at, shown, fresh)
		}
	}
}

// ticks are those of an expression.
func (s stretch) ticks(e expression) (ticks []time.Time) {
	s.walk(func(at time.Time, shown int64, fresh []int64) {
		if e.hour.text == "*" && e.means(shown) || e.hour.text != "*" && slices.ContainsFunc(fresh, e.means) {
			ticks = append(ticks, at)
		}
	})
	return ticks
}

// oddities are when clocks were, or will be, set.
var oddities = []struct{ zone, at string }{
	{"UTC", "2026-01-01T00:00:00Z"},
	{"Europe/Berlin", "2026-03-29T01:00:00Z"},
	{"Europe/Berlin", "2026-10-25T01:00:00Z"},
	{"Europe/Berlin", "2052-12-31T12:00:00Z"}, // beyond the table of the zone
	{"Europe/Berlin", "2072-03-27T01:00:00Z"},
	{"America/New_York", "2026-03-08T07:00:00Z"},
	{"America/New_York", "2026-11-01T06:00:00Z"},
	{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"}, // half an hour
	{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
	{"America/Sao_Paulo", "2018-02-18T02:00:00Z"}, // back at midnight
	{"America/Sao_Paulo", "2018-11-04T03:00:00Z"}, // no midnight
	{"Pacific/Apia", "2011-12-30T10:00:00Z"},      // no 30th
	{"Asia/Kathmandu", "1985-12-31T18:30:00Z"},    // a quarter of an hour
	{"America/St_Johns", "2010-11-07T02:31:00Z"},  // back to the day before, at one past midnight
	{"America/St_Johns", "2010-03-14T03:31:00Z"},
	{"Antarctica/Troll", "2026-03-29T01:00:00Z"}, // two hours
	{"Pacific/Kwajalein", "1993-08-21T12:00:00Z"},
	{"Africa/Casablanca", "2026-02-15T02:00:00Z"},
}

func location(t require, name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// require is what tests of all kinds have.
type require interface{ Fatal(...any) }

func compile(t require, r calendar.Rule) *calendar.Calendar {
	c, err := calendar.Compile(r)
	if err != nil {
		t.Fatal(fmt.Sprintf("compile %+v: %v", r, err))
	}
	return c
}

// drawStretch is around a moment when clocks are set.
func drawStretch(t *rapid.T, step time.Duration, length time.Duration) stretch {
	odd := rapid.SampledFrom(oddities).Draw(t, "odd")
	at, err := time.Parse(time.RFC3339, odd.at)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Duration(rapid.Int64Range(0, int64(length/step)).Draw(t, "steps before")) * step
	return stretch{location(t, odd.zone), at.Add(-before), at.Add(length - before), step, at}
}

func drawExpression(t *rapid.T, second []part[int]) expression {
	return expression{
		second:  rapid.SampledFrom(second).Draw(t, "second"),
		minute:  rapid.SampledFrom(minutes).Draw(t, "minute"),
		hour:    rapid.SampledFrom(hours).Draw(t, "hour"),
		month:   rapid.SampledFrom(months).Draw(t, "month"),
		ofMonth: rapid.SampledFrom(daysOfMonth).Draw(t, "day of month"),
		ofWeek:  rapid.SampledFrom(daysOfWeek).Draw(t, "day of week"),
	}
}

// check asks a calendar everything about a stretch whose ticks are known.
func check(t *rapid.T, c *calendar.Calendar, s stretch, want []time.Time) {
	var got []time.Time
	for tick := c.Next(s.from.Add(-1)); !tick.IsZero() && tick.Before(s.to); tick = c.Next(tick) {
		if got = append(got, tick); len(got) > len(want) {
			break
		}
	}
	for i, tick := range got {
		if i == len(want) || !tick.Equal(want[i]) {
			t.Fatalf("tick %d from %v to %v in %v is %v, want %v", i, s.from, s.to, s.zone, tick, want[i:min(i+1, len(want))])
		}
	}
	if len(got) < len(want) {
		t.Fatalf("from %v to %v in %v, %v and %d more are missing", s.from, s.to, s.zone, want[len(got)], len(want)-len(got)-1)
	}
	for range 5 {
		after, until := s.draw(t, "after", 1), s.draw(t, "until", 1)
		var among []time.Time
		for _, tick := range want {
			if tick.After(after) && !tick.After(until) {
				among = append(among, tick)
			}
		}
		n, last := c.Count(after, until)
		if n != int64(len(among)) || n > 0 && !last.Equal(among[n-1]) || n == 0 && !last.IsZero() {
			t.Fatalf("count(%v, %v) is %d, %v; want %d, %v", after, until, n, last, len(among), among[max(0, len(among)-1):])
		}
		if next := c.Next(after); n > 0 && !next.Equal(among[0]) || n == 0 && !next.IsZero() && !next.After(until) {
			t.Fatalf("next of %v is %v, want %v", after, next, among[:min(1, len(among))])
		}
		at := until.Truncate(s.step)
		if got, want := c.Has(at), slices.ContainsFunc(want, at.Equal); got != want {
			t.Fatalf("has %v is %v, want %v", at, got, want)
		}
		if c.Has(at.Add(time.Microsecond)) {
			t.Fatalf("has %v and a microsecond", at)
		}
	}
}

// A cron expression ticks when each minute of two weeks says so, wherever and
// whenever clocks are set.
func TestCronMinutes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawExpression(t, seconds[:1])
		s := drawStretch(t, time.Minute, 14*24*time.Hour)
		check(t, compile(t, calendar.Rule{Cron: e.text(), Zone: s.zone.String()}), s, s.ticks(e))
	})
}

// The same by seconds, for a few hours.
func TestCronSeconds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawExpression(t, seconds)
		s := drawStretch(t, time.Second, 3*time.Hour)
		check(t, compile(t, calendar.Rule{Cron: e.text(), Zone: s.zone.String()}), s, s.ticks(e))
	})
}

// The same for whole years.
func TestCronYears(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawStretch(t, time.Minute, 0)
		s.from = time.Date(s.from.Year(), 1, 1, 0, 0, 0, 0, time.UTC)
		s.to = s.from.AddDate(1, 0, 0)
		e := drawExpression(t, seconds[:1])
		e.minute = rapid.SampledFrom(minutes[:2]).Draw(t, "minute")
		check(t, compile(t, calendar.Rule{Cron: e.text(), Zone: s.zone.String()}), s, s.ticks(e))
	})
}

// From each minute of the hours when clocks are set the next tick is found, and all
// are counted: of hours of the day and of hours that pass, also if the date on either
// side is excluded.
func TestCronOdd(t *testing.T) {
	t.Parallel()
	for _, odd := range oddities {
		at, err := time.Parse(time.RFC3339, odd.at)
		if err != nil {
			t.Fatal(err)
		}
		s := stretch{location(t, odd.zone), at.Add(-24 * time.Hour), at.Add(24 * time.Hour), time.Minute, at}
		for _, hour := range []part[int]{hours[0], hours[7]} { // * and 0-23
			e := expression{seconds[0], minutes[3], hour, months[0], daysOfMonth[0], daysOfWeek[0]}
			for _, excluded := range [][]string{nil, {s.date(at)}, {s.date(at.Add(-1))}} {
				r := calendar.Rule{Cron: e.text(), Zone: odd.zone, Exclude: excluded}
				want := slices.DeleteFunc(s.ticks(e), func(at time.Time) bool { return slices.Contains(excluded, s.date(at)) })
				walkOdd(t, r, want, at)
			}
		}
	}
}

// walkOdd asks a calendar from each minute around a moment.
func walkOdd(t *testing.T, r calendar.Rule, want []time.Time, odd time.Time) {
	t.Helper()
	c := compile(t, r)
	upTo := func(at time.Time) int {
		n, found := slices.BinarySearchFunc(want, at, time.Time.Compare)
		if found {
			n++
		}
		return n
	}
	for at := odd.Add(-3 * time.Hour); at.Before(odd.Add(3 * time.Hour)); at = at.Add(time.Minute) {
		if got := c.Next(at); upTo(at) < len(want) && !got.Equal(want[upTo(at)]) {
			t.Errorf("%+v: next of %v is %v, want %v", r, at, got, want[upTo(at)])
		}
		before, after := odd.Add(-12*time.Hour), odd.Add(12*time.Hour)
		for _, between := range [][2]time.Time{{before, at}, {at, after}} {
			n, _ := c.Count(between[0], between[1])
			if want := upTo(between[1]) - upTo(between[0]); n != int64(want) {
				t.Errorf("%+v: there are %d from %v to %v, want %d", r, n, between[0], between[1], want)
			}
		}
	}
}
