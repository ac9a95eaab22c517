package calendar_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/timers/calendar"
)

// typical are rules as people write them, and one whose days are years apart.
var typical = []struct {
	name string
	rule calendar.Rule
}{
	{"every", calendar.Rule{Every: time.Second}},
	{"minutes", calendar.Rule{Cron: "*/5 * * * *"}},
	{"nightly", calendar.Rule{Cron: "0 3 * * *", Zone: "Europe/Berlin"}},
	{"workdays", calendar.Rule{Cron: "30 9 * * mon-fri", Zone: "America/New_York", Exclude: []string{"2026-12-24", "2026-12-25"}}},
	{"last", calendar.Rule{Cron: "0 0 LW * ?", Zone: "Europe/Berlin"}},
	{"leap", calendar.Rule{Cron: "0 0 29 2 *", Zone: "Europe/Berlin"}},
	{"window", calendar.Rule{
		Every: 10 * time.Minute, Zone: "Europe/Berlin", Window: &calendar.Window{From: "09:00", To: "17:00", Days: "mon-fri"},
	}},
}

// BenchmarkNext walks from tick to tick: ns/op is for one.
func BenchmarkNext(b *testing.B) {
	for _, tt := range typical {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			c := compile(b, tt.rule)
			from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
			to, at := from.AddDate(10, 0, 0), from
			for b.Loop() {
				if at = c.Next(at); at.After(to) {
					at = from
				}
			}
		})
	}
}

// BenchmarkCount counts the ticks of a year.
func BenchmarkCount(b *testing.B) {
	for _, tt := range typical {
		b.Run(tt.name, func(b *testing.B) {
			c := compile(b, tt.rule)
			from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
			for b.Loop() {
				c.Count(from, from.AddDate(1, 0, 0))
			}
		})
	}
}

// BenchmarkCompile is what a definition costs that is read.
func BenchmarkCompile(b *testing.B) {
	for _, tt := range typical {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				compile(b, tt.rule)
			}
		})
	}
}

// Next allocates nothing. The test is not parallel, since what others allocate
// would count.
func TestNextAllocatesNothing(t *testing.T) {
	for _, tt := range typical {
		c := compile(t, tt.rule)
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if n := testing.AllocsPerRun(100, func() { at = c.Next(at) }); n != 0 {
			t.Errorf("the next tick of %s takes %v allocations", tt.name, n)
		}
	}
}
