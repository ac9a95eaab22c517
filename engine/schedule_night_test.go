package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// J5: in the nights in which clocks change, what is to run at half past two runs once,
// and what is to run each hour runs in each, also if the owner dies in between.
func TestScheduleNights(t *testing.T) {
	for name, night := range map[string]struct {
		begin  time.Time
		starts []string // as they are shown by a clock in Berlin
	}{
		"spring": {time.Date(2000, 3, 26, 0, 55, 0, 0, time.UTC), []string{
			"hourly 03:00 CEST", "nightly 03:00 CEST",
		}},
		"autumn": {time.Date(2000, 10, 29, 0, 25, 0, 0, time.UTC), []string{
			"hourly 02:00 CET", "nightly 02:30 CEST",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			berlin, err := time.LoadLocation("Europe/Berlin")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			natstest.Bubble(t, func(t *testing.T, idle *server.Server) {
				natstest.Stop(idle) // the months without a server are short
				time.Sleep(time.Until(night.begin))
				s := newShop(t, natstest.Start(t, dir))
				owner := s.own("owner")
				s.hire("a")
				s.every(0, 1, engine.Schedule{Name: "hourly", Cron: "0 * * * *", Zone: "Europe/Berlin"})
				s.every(0, 1, engine.Schedule{Name: "nightly", Cron: "30 2 * * *", Zone: "Europe/Berlin"})
				time.Sleep(time.Until(night.begin.Add(4 * time.Minute)))
				s.own("next")
				owner.Down()
				time.Sleep(time.Until(night.begin.Truncate(time.Hour).Add(95 * time.Minute)))
				var starts []string
				for _, schedule := range []string{"hourly", "nightly"} {
					for _, r := range s.of(schedule) {
						starts = append(starts, fmt.Sprint(schedule, r.began.In(berlin).Format(" 15:04 MST")))
					}
				}
				if d := cmp.Diff(night.starts, starts); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		})
	}
}
