package calendar_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/timers/calendar"
)

// Whatever is written, compiling it ends in a calendar or in an error; and of a
// calendar the ticks grow, and are its ticks.
func FuzzCron(f *testing.F) {
	for _, cron := range []string{
		"* * * * *", "*/5 0-30/7 2 L-3,15W feb-oct mon#2,friL", "0 0 0 29 2 ?", "@daily", "TZ=0", "CRON_TZ=", "0 0 LW * 5-7/2",
		"1-2-3 * * * *", "@every 1s", ", , , , ,", "*/18446744073709551615 * * * *", "0 0 30 2 *", "\x00 * * * *", "0 0 ? * ?",
	} {
		f.Add(cron, int64(1774746000))
	}
	berlin := location(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, cron string, unix int64) {
		c, err := calendar.Compile(calendar.Rule{Cron: cron, Zone: "Europe/Berlin"})
		if err != nil || cron == "" {
			return
		}
		after := time.Unix(unix%100_000_000_000, 0).In(berlin)
		for range 5 {
			tick := c.Next(after)
			if tick.IsZero() {
				if after.Year() < 9900 {
					t.Fatalf("%q has no tick after %v", cron, after)
				}
				return
			}
			if n, last := c.Count(after, tick); !tick.After(after) || !c.Has(tick) || n != 1 || !last.Equal(tick) {
				t.Fatalf("%q after %v: next is %v (%v); there are %d, the last is %v", cron, after, tick, c.Has(tick), n, last)
			}
			after = tick
		}
	})
}
