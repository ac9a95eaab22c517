package calendar_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/timers/calendar"
)

// year returns the ticks of 2026 in Berlin, as its clocks show them.
func year(t *testing.T, cron string) (shown []string) {
	t.Helper()
	c := compile(t, calendar.Rule{Cron: cron, Zone: "Europe/Berlin"})
	tick := time.Date(2026, 1, 1, 0, 0, 0, 0, c.Zone()).Add(-1)
	for {
		if tick = c.Next(tick); tick.In(c.Zone()).Year() > 2026 {
			return shown
		}
		shown = append(shown, tick.In(c.Zone()).Format(time.RFC3339))
	}
}

// on returns the times of one date.
func on(shown []string, date string) (times []string) {
	for _, s := range shown {
		if time, ok := strings.CutPrefix(s, date+"T"); ok {
			times = append(times, time)
		}
	}
	return times
}

// An hourly schedule ticks in each hour of the year: 23 times on the short day and
// 25 times on the long one.
func TestYearHourly(t *testing.T) {
	t.Parallel()
	shown := year(t, "0 * * * *")
	if len(shown) != 365*24 {
		t.Errorf("there are %d ticks, want %d", len(shown), 365*24)
	}
	for i, s := range shown[1:] {
		before, _ := time.Parse(time.RFC3339, shown[i])
		at, err := time.Parse(time.RFC3339, s)
		if err != nil || at.Sub(before) != time.Hour {
			t.Errorf("%s is not an hour after %s", s, shown[i])
		}
	}
	short, long := on(shown, "2026-03-29"), on(shown, "2026-10-25")
	want := []string{"01:00:00+01:00", "03:00:00+02:00"}
	if len(short) != 23 || !slices.Equal(short[1:3], want) {
		t.Errorf("the short day has %q, want 23 with %q", short, want)
	}
	want = []string{"01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00", "03:00:00+01:00"}
	if len(long) != 25 || !slices.Equal(long[1:5], want) {
		t.Errorf("the long day has %q, want 25 with %q", long, want)
	}
}

// Half past two comes once a day: at three on the day that has none, and at its
// first coming on the day that has two.
func TestYearHalfPastTwo(t *testing.T) {
	t.Parallel()
	shown := year(t, "30 2 * * *")
	var want []string
	for day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() == 2026; day = day.AddDate(0, 0, 1) {
		date := day.Format(time.DateOnly)
		switch {
		case date == "2026-03-29":
			want = append(want, date+"T03:00:00+02:00")
		case date < "2026-03-29", date > "2026-10-25":
			want = append(want, date+"T02:30:00+01:00")
		default:
			want = append(want, date+"T02:30:00+02:00")
		}
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Error(diff)
	}
}

// What the words of an expression mean, by example.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ cron, zone, after, want string }{
		{"@hourly", "", "2026-01-01T00:00:00", "2026-01-01T01:00:00Z"},
		{"@Daily", "", "2026-01-01T00:00:00", "2026-01-02T00:00:00Z"},
		{"@midnight", "Asia/Kathmandu", "2026-01-01T00:00:00", "2026-01-01T18:15:00Z"},
		{"@weekly", "", "2026-01-01T00:00:00", "2026-01-04T00:00:00Z"},
		{"@monthly", "", "2026-01-01T00:00:00", "2026-02-01T00:00:00Z"},
		{"@yearly", "", "2026-01-01T00:00:00", "2027-01-01T00:00:00Z"},
		{"@annually", "", "2025-12-31T23:59:59", "2026-01-01T00:00:00Z"},
		{"  */20  * * *   * ", "", "2026-01-01T00:20:00", "2026-01-01T00:40:00Z"},
		{"*/20 * * * * *", "", "2026-01-01T00:00:20", "2026-01-01T00:00:40Z"},
		{"0 0 13 * 5", "", "2026-01-01T00:00:00", "2026-01-02T00:00:00Z"},      // the 13th, or a Friday
		{"0 0 13 * ?", "", "2026-01-01T00:00:00", "2026-01-13T00:00:00Z"},      // the 13th
		{"0 0 */32,13 * 5", "", "2026-01-01T00:00:00", "2026-02-13T00:00:00Z"}, // a star: the 1st or the 13th, and a Friday
		{"0 0 29 2 *", "", "2096-03-01T00:00:00", "2104-02-29T00:00:00Z"},      // 2100 is no leap year
		{"0 0 * 2 tue#5", "", "2028-03-01T00:00:00", "2056-02-29T00:00:00Z"},   // once in 28 years
		{"0 0 L-30 * *", "", "2026-01-01T00:00:00", "2026-03-01T00:00:00Z"},
		{"0 0 LW * *", "", "2026-01-01T00:00:00", "2026-01-30T00:00:00Z"},
		{"0 0 1W * *", "", "2026-07-31T00:00:00", "2026-08-03T00:00:00Z"},  // the 1st is a Saturday
		{"0 0 31W * *", "", "2026-05-01T00:00:00", "2026-05-29T00:00:00Z"}, // the 31st is a Sunday
		{"0 0 * * FRIL", "", "2026-01-01T00:00:00", "2026-01-30T00:00:00Z"},
		{"0 0 * * mon#2", "", "2026-01-01T00:00:00", "2026-01-12T00:00:00Z"},
		{"0 0 * * fri-mon", "", "2026-01-05T00:00:00", "2026-01-09T00:00:00Z"},
		{"0 0,1 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00", "2018-11-04T03:00:00Z"}, // no midnight
		{"0 0,1 * * *", "America/Sao_Paulo", "2018-11-04T03:00:00", "2018-11-05T02:00:00Z"}, // not twice
		{"0 3 * * *", "Pacific/Apia", "2011-12-29T13:00:00", "2011-12-30T10:00:00Z"},        // no 30th
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00", "2026-10-03T15:30:00Z"},
		{"15 * * * *", "Australia/Lord_Howe", "2026-10-03T15:00:00", "2026-10-03T16:15:00Z"},
		{"30 * 17 2 *", "America/Sao_Paulo", "2018-02-18T01:45:00", "2018-02-18T02:30:00Z"}, // back at midnight
		{"59 23 31 12 *", "", "9999-12-31T23:58:59", "9999-12-31T23:59:00Z"},
		{"0 0 * * *", "", "9999-12-31T00:00:00", "0001-01-01T00:00:00Z"}, // there is no more
	} {
		after, err := time.Parse("2006-01-02T15:04:05", tt.after)
		if err != nil {
			t.Fatal(err)
		}
		got := compile(t, calendar.Rule{Cron: tt.cron, Zone: tt.zone}).Next(after).Format(time.RFC3339)
		if got != tt.want {
			t.Errorf("%q in %q after %s ticks at %s, want %s", tt.cron, tt.zone, tt.after, got, tt.want)
		}
	}
}

// What is wrong is refused in one line that names the field.
func TestRefuses(t *testing.T) {
	t.Parallel()
	window := func(from, to, days string) calendar.Rule {
		return calendar.Rule{Every: time.Minute, Window: &calendar.Window{From: from, To: to, Days: days}}
	}
	cron := func(text string) calendar.Rule { return calendar.Rule{Cron: text} }
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		r           calendar.Rule
		field, want string
	}{
		{cron("* * * *"), "cron", "has 4 fields"},
		{cron("0 0 0 1 1 * 2027"), "cron", "has 7 fields"},
		{cron("60 * * * *"), "cron", `minute "60": write 0-59`},
		{cron("* 24 * * *"), "cron", `hour "24": write 0-23`},
		{cron("5,,6 * * * *"), "cron", `minute "5,,6"`},
		{cron("*-5 * * * *"), "cron", `minute "*-5"`},
		{cron("** * * * *"), "cron", `minute "**"`},
		{cron("+5 * * * *"), "cron", `minute "+5"`},
		{cron("*/0 * * * *"), "cron", `minute "*/0"`},
		{cron("1-2-3 * * * *"), "cron", `minute "1-2-3"`},
		{cron("* 22-2 * * *"), "cron", `hour "22-2"`},
		{cron("* * 0 * *"), "cron", `day of month "0"`},
		{cron("* * L-31 * *"), "cron", `day of month "L-31"`},
		{cron("* * W * *"), "cron", `day of month "W"`},
		{cron("* * * 13 *"), "cron", `month "13"`},
		{cron("* * * * 8"), "cron", `day of week "8"`},
		{cron("* * * * L"), "cron", `day of week "L"`},
		{cron("* * * * mon#6"), "cron", `day of week "mon#6"`},
		{cron("* * * * unm"), "cron", `day of week "unm"`},
		{cron("0 0 30 2 *"), "cron", "has no date in 400 years"},
		{cron("0 0 31 4,6,9,11 *"), "cron", "has no date in 400 years"},
		{cron("@every 5m"), "cron", "write it as every"},
		{cron("@reboot"), "cron", "is no alias"},
		{cron("TZ=Europe/Berlin 0 0 * * *"), "cron", "write it as zone"},
		{cron("CRON_TZ=0"), "cron", "write it as zone"},
		{cron(" "), "cron", "has 0 fields"},
		{calendar.Rule{Every: time.Millisecond}, "every", "1ms is too short; write 100ms or more"},
		{calendar.Rule{Every: -time.Hour}, "every", "is too short"},
		{calendar.Rule{Every: time.Second + 1}, "every", "not in whole milliseconds"},
		{window("9", "17:00", ""), "window.from", "no time of the day"},
		{window("24:00", "17:00", ""), "window.from", "no time of the day"},
		{window("09:00", "", ""), "window.to", "no time of the day"},
		{window("09:00", "17:00:00.5", ""), "window.to", "no time of the day"},
		{window("09:00", "09:00:00", ""), "window.to", "ends when it begins"},
		{window("09:00", "17:00", "workdays"), "window.days", "no days of the week"},
		{window("09:00", "17:00", "mon#1"), "window.days", "no days of the week"},
		{calendar.Rule{Cron: "* * * * *", Window: &calendar.Window{}}, "window", "it bounds every"},
		{calendar.Rule{At: []time.Time{}}, "at", "names no time"},
		{calendar.Rule{Cron: "* * * * *", Every: time.Second}, "every", "one of cron, every, after and at"},
		{calendar.Rule{Every: time.Second, At: []time.Time{at}}, "at", "one of cron, every, after and at"},
		{calendar.Rule{Start: at, End: at}, "end", "not after the start"},
		{calendar.Rule{Exclude: []string{"2027-12-24", "2027-02-29"}}, "exclude[1]", `"2027-02-29" is no date`},
		{calendar.Rule{Zone: "Europe/Berlni"}, "zone", "time zone data"},
	} {
		_, err := calendar.Compile(tt.r)
		var wrong *calendar.FieldError
		switch {
		case !errors.As(err, &wrong):
			t.Errorf("%+v: got %v, want an error about %s", tt.r, err, tt.field)
		case wrong.Field != tt.field, !strings.Contains(wrong.Message, tt.want), strings.Contains(err.Error(), "\n"):
			t.Errorf("%+v: got %v, want %s: …%s…", tt.r, err, tt.field, tt.want)
		}
	}
}

// A jitter that was computed once is the same for ever, or a job would be made
// twice, at two times.
func TestJitterGolden(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		tick time.Time
		most time.Duration
		want time.Duration
	}{
		{"nightly-report", at, 10 * time.Second, 3420 * time.Millisecond},
		{"nightly-report", at.Add(time.Millisecond), 10 * time.Second, 5693 * time.Millisecond},
		{"nightly-report", at.Add(24 * time.Hour), time.Hour, 816_331 * time.Millisecond},
		{"a", time.UnixMilli(-1), 24 * time.Hour, 1_495_368 * time.Millisecond},
		{"a", at, time.Millisecond, 0},
		{"a", at, time.Millisecond - 1, 0},
		{"a", at, 0, 0},
		{"a", at, -time.Second, 0},
	} {
		if got := calendar.Jitter(tt.name, tt.tick, tt.most); got != tt.want {
			t.Errorf("jitter of %s at %v up to %v is %v, want %v", tt.name, tt.tick, tt.most, got, tt.want)
		}
	}
}

// Jitter spreads both the schedules of one tick and the ticks of one schedule.
func TestJitterSpreads(t *testing.T) {
	t.Parallel()
	const most, n, slots = 10 * time.Second, 20_000, 10
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var names, ticks [slots]int
	for i := range n {
		name := "schedule-" + at.Add(time.Duration(i)*time.Second).Format("150405")
		for counts, got := range map[*[slots]int]time.Duration{
			&names: calendar.Jitter(name, at, most),
			&ticks: calendar.Jitter("a", at.Add(time.Duration(i)*time.Hour), most),
		} {
			if got < 0 || got >= most || got%time.Millisecond != 0 {
				t.Fatalf("jitter is %v", got)
			}
			counts[got/time.Second]++
		}
	}
	for slot := range slots {
		for what, got := range map[string]int{"names": names[slot], "ticks": ticks[slot]} {
			if got < n/slots*9/10 || got > n/slots*11/10 {
				t.Errorf("of %d %s, %d are in second %d", n, what, got, slot)
			}
		}
	}
}
