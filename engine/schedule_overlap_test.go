package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

var overlaps = map[string]struct {
	spec.Overlap
	most   int
	starts []int          // of E4: in seconds from the first tick, with one job by hand after 15 s
	counts map[string]int // of E4: what became of the 20 ticks and of that job, after 199 s
}{
	"allow": {
		most: 5, starts: []int{0, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190},
		counts: map[string]int{"succeeded": 18, "running": 3},
	},
	"two": {
		Overlap: spec.Overlap{Policy: spec.OverlapAllow, Limit: 2}, most: 2, starts: []int{0, 10, 40, 50, 80, 90, 120, 130, 160, 170},
		counts: map[string]int{"succeeded": 9, "running": 1, "overlap": 11},
	},
	"skip": {
		Overlap: spec.Overlap{Policy: spec.OverlapSkip}, most: 1, starts: []int{0, 40, 80, 120, 160},
		counts: map[string]int{"succeeded": 5, "overlap": 16},
	},
	"queue": {
		Overlap: spec.Overlap{Policy: spec.OverlapQueue, Limit: 3}, most: 1, starts: []int{0, 35, 70, 105, 140, 175},
		counts: map[string]int{"succeeded": 5, "running": 1, "scheduled": 3, "overlap": 12},
	},
	"cancel": {
		Overlap: spec.Overlap{Policy: spec.OverlapCancelPrevious}, most: 1,
		starts: []int{0, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190},
		counts: map[string]int{"cancelled": 20, "running": 1},
	},
}

// E4: where jobs take longer than the time between ticks, each policy starts them when
// it says, also one that is triggered meanwhile, and tells of every tick that it
// declines.
func TestScheduleOverlap(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		s := newShop(t, srv)
		s.own("owner")
		s.hire("a")
		s.hire("b")
		first := s.opens()
		time.Sleep(time.Until(first.Add(-5 * time.Second)))
		for name, o := range overlaps {
			s.every(10*time.Second, 35, engine.Schedule{Name: name, Overlap: o.Overlap})
		}
		time.Sleep(time.Until(first.Add(15 * time.Second)))
		for name := range overlaps {
			if _, err := s.TriggerSchedule(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Until(first.Add(199 * time.Second)))
		for name, o := range overlaps {
			s.told(name, first, first.Add(199*time.Second), 10*time.Second)
			var starts []int
			for _, r := range s.of(name) {
				after := r.began.Sub(first)
				if starts = append(starts, int(after.Seconds())); after%time.Second > 100*time.Millisecond {
					t.Errorf("%s: %s began after %v", name, r.job, after)
				}
			}
			if d := cmp.Diff(o.starts, starts); d != "" {
				t.Errorf("%s: the starts (-want +got):\n%s", name, d)
			}
			if d := cmp.Diff(o.counts, count(s.ticks(name))); d != "" {
				t.Errorf("%s: the jobs (-want +got):\n%s", name, d)
			}
			if s.most[name] != o.most {
				t.Errorf("%s: %d went on at once, want %d", name, s.most[name], o.most)
			}
		}
	})
}

// X6: the bound holds for all nodes together, also while workers and owners die, and
// who is cancelled hears of it within a second.
func TestScheduleOverlapOfAll(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		s := newShop(t, srv)
		links := map[string]*natstest.Link{"owner": s.own("owner")}
		for _, node := range []string{"a", "b", "c"} {
			links[node] = s.hire(node)
		}
		first := s.opens()
		s.own("next")
		time.Sleep(time.Until(first.Add(-500 * time.Millisecond)))
		for name, o := range overlaps {
			if name != "allow" {
				s.every(time.Second, 5, engine.Schedule{Name: name, Overlap: o.Overlap})
			}
		}
		time.Sleep(time.Until(first.Add(30*time.Second + 200*time.Millisecond)))
		s.quick(first, time.Now()) // while nobody has died
		for i, node := range []string{"a", "owner", "b"} {
			links[node].Down()
			time.Sleep(5 * time.Second)
			if node != "owner" {
				s.hire(fmt.Sprint("d", i))
			}
			time.Sleep(15 * time.Second)
		}
		end := time.Now().Truncate(time.Second)
		for name, o := range overlaps {
			if name == "allow" {
				continue
			}
			jobs := s.told(name, first, end, time.Second)
			if ran := len(s.of(name)); s.most[name] != o.most || ran < 12 {
				t.Errorf("%s: %d went on at once, want %d; %d began", name, s.most[name], o.most, ran)
			}
			for what := range count(jobs) {
				if what == "failed" || what == "lost" || what == "misfire" {
					t.Errorf("%s: %v", name, count(jobs))
				}
			}
		}
	})
}

// quick fails the test unless jobs that were cancelled heard of it within a second of
// the tick that did that.
func (s *shop) quick(from, to time.Time) {
	s.Helper()
	runs := s.of("cancel")
	if want := int(to.Sub(from)/time.Second) + 1; len(runs) != want {
		s.Errorf("%d jobs began, want %d", len(runs), want)
	}
	for i, r := range runs[:len(runs)-1] {
		if at := from.Add(time.Duration(i+1) * time.Second); r.told.Before(at) || r.told.Sub(at) > 100*time.Millisecond {
			s.Errorf("%s was told to end at %v, want soon after %v", r.job, r.told, at)
		}
	}
}

// P7: ticks wait for a worker as their policy says, and each has one job when there is
// one.
func TestScheduleNoWorker(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		s := newShop(t, srv)
		s.own("owner")
		first := s.opens()
		end := first.Add(5 * time.Minute)
		time.Sleep(time.Until(first.Add(-500 * time.Millisecond)))
		s.every(time.Second, 0, engine.Schedule{Name: "all", End: end})
		s.every(time.Second, 0, engine.Schedule{Name: "short", End: end, QueueTimeout: spec.Duration(time.Minute)})
		s.every(time.Second, 0, engine.Schedule{Name: "queue", End: end, Overlap: spec.Overlap{Policy: spec.OverlapQueue, Limit: 3}})
		time.Sleep(time.Until(end.Add(-500 * time.Millisecond)))
		s.hire("a")
		time.Sleep(time.Until(end.Add(90 * time.Second)))
		for name, want := range map[string]map[string]int{
			"all": {"succeeded": 300}, "short": {"succeeded": 60, "failed": 240}, "queue": {"succeeded": 4, "overlap": 296},
		} {
			jobs := s.told(name, first, end, time.Second)
			if d := cmp.Diff(want, count(jobs)); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
			if ran := len(s.of(name)); ran != want["succeeded"] {
				t.Errorf("%s: %d jobs began, want %d", name, ran, want["succeeded"])
			}
		}
	})
}
