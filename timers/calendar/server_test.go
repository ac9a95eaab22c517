package calendar_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/timers/calendar"
)

// The server's own message schedules tick at the same moments, where both know what
// is meant: over the change of the clocks too, but neither for times that are skipped
// nor where clocks change by half an hour (there the server leaves out a day).
func TestServerAgrees(t *testing.T) {
	schedules := []calendar.Rule{
		{Cron: "@hourly"},
		{Cron: "@daily", Zone: "Europe/Berlin"},
		{Cron: "@weekly"},
		{Cron: "0 0 0 26 * *", Zone: "America/New_York"},
		{Cron: "0 0 * * * *", Zone: "Europe/Berlin"},
		{Cron: "0 30 */6 * * *", Zone: "Asia/Kathmandu"},
		{Cron: "0 15 9-17 * * mon-fri", Zone: "Europe/Berlin"},
		{Cron: "0 0 3 * * *", Zone: "Europe/Berlin"},
		{Cron: "30 5 0 1,25-27 * *", Zone: "Australia/Sydney"},
		{Cron: "0 0 12 24 * sun"},
		{Cron: "0 0 0 ? mar sun"},
		{Cron: "*/10 59 23 25 3 *", Zone: "Europe/Berlin"},
	}
	dir := t.TempDir()
	natstest.Bubble(t, func(t *testing.T, idle *server.Server) {
		natstest.Stop(idle) // the days without a server are short
		time.Sleep(time.Until(time.Date(2000, 3, 24, 11, 0, 1, 0, time.UTC)))
		nc := natstest.Connect(t, natstest.Start(t, dir))
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: "S", Subjects: []string{"schedule.*", "tick.*"}, AllowMsgSchedules: true, AllowMsgTTL: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		for i, r := range schedules {
			msg := nats.NewMsg(fmt.Sprint("schedule.", i))
			msg.Header.Set("Nats-Schedule", r.Cron)
			msg.Header.Set("Nats-Schedule-Target", fmt.Sprint("tick.", i))
			if r.Zone != "" {
				msg.Header.Set("Nats-Schedule-Time-Zone", r.Zone)
			}
			if _, err := js.PublishMsg(t.Context(), msg); err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
		}
		time.Sleep(3 * 24 * time.Hour)
		to := time.Now()

		ticks := make([][]string, len(schedules))
		messages, err := js.OrderedConsumer(t.Context(), "S", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"tick.*"}})
		if err != nil {
			t.Fatal(err)
		}
		batch, err := messages.FetchNoWait(100_000)
		if err != nil {
			t.Fatal(err)
		}
		for msg := range batch.Messages() {
			var i int
			if _, err := fmt.Sscanf(msg.Subject(), "tick.%d", &i); err != nil {
				t.Fatal(err)
			}
			// The server says with each tick when it takes the next one to be.
			ticks[i] = append(ticks[i], msg.Headers().Get("Nats-Schedule-Next"))
		}
		for i, r := range schedules {
			var want []string
			c := compile(t, r)
			for tick := c.Next(from); tick.Before(to); {
				tick = c.Next(tick)
				want = append(want, tick.In(c.Zone()).Format(time.RFC3339Nano))
			}
			if got := ticks[i]; len(want) == 0 || strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("%+v: the server says %q, the calendar %q", r, got, want)
			}
		}
	})
}
