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

// misfires are how many ticks a policy makes up for that were found too late.
var misfires = map[string]struct {
	spec.Misfire
	most int
}{
	"default": {most: 1},
	"once":    {spec.Misfire{Policy: spec.MisfireOnce}, 1},
	"skip":    {spec.Misfire{Policy: spec.MisfireSkip}, 0},
	"all":     {spec.Misfire{Policy: spec.MisfireAll, Limit: 5}, 5},
}

// X4: NATS is away from five seconds before a daily tick on. Of that, and of the ticks of
// every second, exactly what is documented runs afterwards, and the others are skipped.
func TestScheduleMisfire(t *testing.T) {
	for _, back := range []time.Duration{40 * time.Second, 60 * time.Second, 70 * time.Second} {
		t.Run(back.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				s := newShop(t, srv)
				links := []*natstest.Link{s.own("owner"), s.hire("a")}
				daily := s.opens()
				time.Sleep(time.Until(daily.Add(-30*time.Second + 500*time.Millisecond)))
				for name, m := range misfires {
					s.every(time.Second, 0, engine.Schedule{Name: name, Misfire: m.Misfire})
					s.every(0, 0, engine.Schedule{Name: "daily-" + name, Misfire: m.Misfire, Cron: fmt.Sprintf("%d 0 * * *", daily.Minute())})
				}
				time.Sleep(time.Until(daily.Add(-5500 * time.Millisecond)))
				for _, l := range links {
					l.Down()
				}
				time.Sleep(time.Until(daily.Add(back)))
				for _, l := range links {
					l.Up()
				}
				time.Sleep(time.Until(daily.Add(4 * time.Minute)))
				for name, m := range misfires {
					s.made(name, daily.Add(-29*time.Second), daily.Add(3*time.Minute), m.most)
					jobs := s.told("daily-"+name, daily, daily.Add(time.Second), time.Second)
					want := map[string]int{"succeeded": 1}
					if m.most == 0 && back >= time.Minute {
						want = map[string]int{"misfire": 1}
					}
					if d := cmp.Diff(want, count(jobs)); d != "" {
						t.Errorf("daily, %s (-want +got):\n%s", name, d)
					}
				}
			})
		})
	}
}

// made fails the test unless each tick of a schedule of every second is told of, and
// either runs, or was found more than a minute late and is skipped; so many of the latter
// run all the same, the last ones. It returns how many were found that late. A record is
// made a moment after it was decided what becomes of its tick, so one that was made just
// over a minute late may have been found in time.
func (s *shop) made(name string, from, to time.Time, most int) (late int) {
	s.Helper()
	ran, unsure := 0, 0
	for _, j := range s.told(name, from, to, time.Second) {
		found := j.Created.Sub(*j.Due)
		switch {
		case j.State == "skipped" && (j.Error.Code != "misfire" || ran > 0 || found <= time.Minute):
			s.Errorf("%s was skipped for %s, found %v late, after %d such that ran", j.ID, j.Error.Code, found, ran)
		case j.State == "skipped":
			late += int(j.Tick.Count)
		case j.State != "succeeded" || j.Attempt != 1:
			s.Errorf("%s is %s in attempt %d", j.ID, j.State, j.Attempt)
		case found > time.Minute+100*time.Millisecond:
			ran++
		case found > time.Minute:
			unsure++
		}
	}
	if late += ran; ran != min(most, late) && ran+unsure != min(most, late+unsure) {
		s.Errorf("%s: %d ran of the %d ticks that were found too late, want %d", name, ran, late, min(most, late))
	}
	return late
}

// J2: the owner dies ten times, and no tick is lost or late by more than it takes to
// find out; then all are down for ten minutes, and what was due meanwhile is made up for
// as the policy says.
func TestScheduleOwnersDie(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		s := newShop(t, srv)
		owner, worker := s.own("o0"), s.hire("a")
		first := s.opens()
		time.Sleep(time.Until(first.Add(-500 * time.Millisecond)))
		for name, m := range misfires {
			s.every(time.Second, 0, engine.Schedule{Name: name, Misfire: m.Misfire})
		}
		for i := range 10 {
			next := s.own(fmt.Sprint("o", i+1))
			time.Sleep(3*time.Second + time.Duration(i)*137*time.Millisecond)
			owner.Down()
			time.Sleep(10 * time.Second)
			owner = next
		}
		down := time.Now()
		owner.Down()
		worker.Down()
		time.Sleep(10 * time.Minute)
		s.own("last")
		s.hire("b")
		time.Sleep(2 * time.Minute)
		end := time.Now().Truncate(time.Second).Add(-5 * time.Second)
		for name, m := range misfires {
			if late := s.made(name, first, down.Truncate(time.Second), 0); late > 0 {
				t.Errorf("%s: while owners died %d ticks were found more than a minute late", name, late)
			}
			for _, j := range s.told(name, first, down.Add(-9*time.Second).Truncate(time.Second), time.Second) {
				if found := j.Created.Sub(*j.Due); found > 8*time.Second {
					t.Errorf("%s was found %v late", j.ID, found)
				}
			}
			if late := s.made(name, down.Add(time.Second).Truncate(time.Second), end, m.most); late < 530 || late > 560 {
				t.Errorf("%s: %d ticks were found more than a minute late, want some 540", name, late)
			}
		}
	})
}
