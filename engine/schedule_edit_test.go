package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// X7: people pause, resume, edit and delete schedules that tick every second, while
// owners and a worker die. No job begins of one that is paused or deleted after they were
// told so, no edit is undone, and whoever edits what he has not seen is told what there is.
func TestScheduleEdits(t *testing.T) {
	many := *seeds
	if many == 0 {
		many = 3
	}
	for i := range many {
		n := uint64(i) + 1
		if *seed > 0 {
			n, many = *seed, 1
		}
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				e := &editors{shop: newShop(t, srv), rng: rand.New(rand.NewPCG(n, 7)), plans: map[string]*planned{}}
				e.play()
			})
		})
		if many == 1 {
			return
		}
	}
}

// editors are people who edit schedules.
type editors struct {
	*shop
	rng   *rand.Rand
	plans map[string]*planned
}

// planned is what people have said about a schedule.
type planned struct {
	engine.Schedule
	revision uint64
	rests    []rest
}

// rest is a time in which nothing of a schedule begins.
type rest struct{ from, to time.Time }

func (p *planned) resting() bool { return len(p.rests) > 0 && p.rests[len(p.rests)-1].to.IsZero() }

func (e *editors) play() {
	few := alone(2) // slots: jobs wait, and have not begun when their schedule is paused
	owner, worker := e.own("o0"), e.begin("a", few, e.job())
	e.begin("b", few, e.job())
	time.Sleep(time.Until(e.opens()))
	for i := range 12 {
		def := engine.Schedule{Name: fmt.Sprint("s", i), Every: spec.Duration(time.Second)}
		if i%3 == 0 {
			def.Overlap = spec.Overlap{Policy: spec.OverlapQueue, Limit: 2}
		}
		e.plans[def.Name] = &planned{Schedule: def}
		e.define(e.plans[def.Name])
	}
	for i := range 150 {
		e.edit(e.plans[fmt.Sprint("s", e.rng.IntN(len(e.plans)))])
		switch i {
		case 40, 90:
			next := e.own(fmt.Sprint("o", i))
			owner.Down()
			owner = next
		case 60:
			worker.Down()
		}
		time.Sleep(time.Duration(e.rng.IntN(500)) * time.Millisecond)
	}
	time.Sleep(20 * time.Second)
	for _, p := range e.plans {
		e.check(p)
	}
}

// define stores a schedule anew.
func (e *editors) define(p *planned) {
	e.Helper()
	e.wakes(p)
	e.every(time.Second, float64(e.rng.IntN(3))/2, p.Schedule)
	p.revision = e.now(p).Revision
}

// now returns what is stored of a schedule.
func (e *editors) now(p *planned) engine.ScheduleInfo {
	e.Helper()
	info, err := e.GetSchedule(e.Context(), p.Name)
	if err != nil {
		e.Fatal(err)
	}
	return info
}

// wakes notes that jobs may begin from now on.
func (e *editors) wakes(p *planned) {
	if p.resting() {
		p.rests[len(p.rests)-1].to = time.Now()
	}
}

// edit does something to a schedule, sometimes by what somebody has seen who is late.
func (e *editors) edit(p *planned) {
	e.Helper()
	seen := engine.ScheduleEdit{Revision: p.revision}
	stale := e.rng.IntN(5) == 0 && p.revision > 0
	if stale {
		seen.Revision--
	}
	var err error
	var after engine.Schedule
	switch draw := e.rng.IntN(8); {
	case p.revision == 0:
		e.define(p)
		return
	case draw == 0:
		err = e.DeleteSchedule(e.Context(), p.Name, seen)
	case draw < 3 && !p.resting():
		p.Every = spec.Duration(time.Duration(1+e.rng.IntN(3)) * time.Second)
		e.define(p)
		return
	case p.resting():
		if !stale {
			e.wakes(p)
		}
		after, err = e.ResumeSchedule(e.Context(), p.Name, seen)
	default:
		after, err = e.PauseSchedule(e.Context(), p.Name, seen)
	}
	var conflict *engine.ConflictError
	if stale {
		if !errors.As(err, &conflict) || conflict.Revision != p.revision || conflict.Current == nil {
			e.Errorf("%s: an edit of revision %d is answered with %v, and there is %d", p.Name, seen.Revision, err, p.revision)
		}
		return
	}
	if err != nil {
		e.Fatal(err)
	}
	if p.revision = after.Revision; (after.IsPaused() || p.revision == 0) && !p.resting() {
		p.rests = append(p.rests, rest{from: time.Now()})
	}
}

// check compares a schedule with what people have said last, and its jobs with when
// it rested.
func (e *editors) check(p *planned) {
	e.Helper()
	info, err := e.GetSchedule(e.Context(), p.Name)
	switch {
	case p.revision == 0 && !errors.Is(err, engine.ErrNotFound):
		e.Errorf("%s was deleted: %+v, %v", p.Name, info, err)
	case p.revision > 0 && (err != nil || info.Revision != p.revision || info.Definition.IsPaused() != p.resting() || info.Definition.Every != p.Every):
		e.Errorf("%s is %+v, %v, want revision %d, every %v, paused %v", p.Name, info.Definition, err, p.revision, p.Every, p.resting())
	}
	runs := e.of(p.Name)
	if len(runs) == 0 {
		e.Errorf("%s: nothing began", p.Name)
	}
	for _, r := range runs {
		for _, pause := range p.rests {
			if r.attempt == 1 && r.began.After(pause.from) && (pause.to.IsZero() || r.began.Before(pause.to)) {
				e.Errorf("%s began at %v, %v after its schedule was paused or deleted", r.job, r.began, r.began.Sub(pause.from))
			}
		}
	}
}
