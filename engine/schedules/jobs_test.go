package schedules_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/spec"
)

// told says of jobs what a backfill is about.
func told(jobs []machine.Job) (lines []string) {
	for _, j := range jobs {
		lines = append(lines, fmt.Sprintf("%s %s%s %s %s", j.ID, j.State, onlyIf(j.Wait != "", " "+string(j.Wait)), j.Tick.By, j.Input))
	}
	return lines
}

func onlyIf(is bool, text string) string {
	if is {
		return text
	}
	return ""
}

// A backfill is about the ticks from one moment and before another one.
func TestBackfill(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		s := hourly
		s.Input = []byte(`{"of":"${tick.time}"}`)
		p.apply(s)
		midnight := p.definition("hourly").Stored.Truncate(time.Hour)
		hour := func(n float64) time.Time { return midnight.Add(time.Duration(n * float64(time.Hour))) }
		line := func(n float64, state string) string {
			return fmt.Sprintf("report.hourly=%d-backfill %s backfill {\"of\":%q}", hour(n).UnixMilli(), state, hour(n).UTC().Format(time.RFC3339))
		}
		is := func(from, to time.Time, want ...string) {
			t.Helper()
			if d := cmp.Diff(want, told(must(p.Backfill(t.Context(), "hourly", from, to))(t))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		}
		time.Sleep(2*time.Hour + time.Second)
		is(hour(-2), hour(1), line(-2, "pending"), line(-1, "pending"), line(0, "pending"))
		is(hour(0.5), time.Time{}, line(1, "pending"), line(2, "pending"))
		is(hour(0.1), hour(0.9))

		s.Overlap.Policy = spec.OverlapSkip
		p.apply(s)
		must(p.Pause(t.Context(), "hourly", schedules.EditOptions{}))(t)
		is(hour(0), hour(1), line(0, "scheduled turn"))

		refused := func(schedule string, from, to time.Time, want string) {
			t.Helper()
			if _, err := p.Backfill(t.Context(), schedule, from, to); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		refused("hourly", hour(1), hour(1), "give the earlier time first")
		refused("hourly", hour(0), hour(3), "is to come")
		refused("hourly", hour(-10_000), hour(0.5), "more than 10000 ticks")
		if n := len(must(p.Backfill(t.Context(), "hourly", hour(-10_000), hour(0)))(t)); n != 10_000 {
			t.Errorf("%d jobs, want 10000", n)
		}
		p.apply(spec.Schedule{Name: "delay", After: spec.Duration(time.Hour), Job: "a.b"})
		refused("delay", hour(0), hour(1), "trigger it instead")
		s.Name, s.Input = "half", []byte(`"${1 / (tick.number - tick.number)}"`)
		p.apply(s)
		refused("half", hour(0), hour(1), "its input has no value at 2000-01-01T00:00:00Z")
		refused("none", hour(0), hour(1), "there is no schedule of that name")
		refused("no.name", hour(0), hour(1), "use only")
	})
}

// A job by hand has the input that it is given, whatever that of the schedule is.
func TestSource(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		s := hourly
		s.Input = []byte(`"${1 / (tick.number - tick.number)}"`)
		p.apply(s)
		now := time.Now()
		bare := must(p.Source(t.Context(), "hourly", nil))(t)
		if _, err := bare.Job(now, now, machine.ByHand); err == nil || !strings.Contains(err.Error(), "its input has no value") {
			t.Errorf("got %v", err)
		}
		given := must(p.Source(t.Context(), "hourly", []byte(`"${tick.time}"`)))(t)
		want := fmt.Sprintf(`report.hourly=%d-manual pending hand "${tick.time}"`, now.UnixMilli())
		if d := cmp.Diff([]string{want}, told([]machine.Job{must(given.Job(now, now, machine.ByHand))(t)})); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if _, err := p.Source(t.Context(), "none", nil); !errors.Is(err, schedules.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}
