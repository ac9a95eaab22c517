package scheduler_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/scheduler"
)

var (
	seeds = flag.Int("seeds", 8, "how many random programs TestRandom runs")
	seed  = flag.Uint64("seed", 0, "the one random program that it runs again")
)

// Random programs: schedules with all policies are made, edited, paused, resumed,
// deleted, triggered and made up for, while up to two owners at once die at any of
// their writes, are cut off, freeze, lose answers, and have writes that land late; or
// while nobody is owner for minutes. Then somebody is, and all comes to rest: each
// tick that was due has one record or lies in one roll-up, nothing ran twice, and
// never more went on than the policy allows.
func TestRandom(t *testing.T) {
	first, many := uint64(1), *seeds
	if *seed > 0 {
		first, many = *seed, 1
	}
	for s := first; s < first+uint64(many); s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				r := &random{world: newWorld(t, srv), rng: rand.New(rand.NewPCG(s, 3)), plans: map[string]*plan{}}
				r.model = newModel(r)
				r.play()
				if t.Failed() {
					t.Logf("again: go test ./timers/scheduler -run TestRandom -seed %d", s)
					for _, line := range r.story {
						t.Log(line)
					}
				}
			})
		})
	}
}

// random is the world of one program.
type random struct {
	*world
	rng    *rand.Rand
	story  []string
	plans  map[string]*plan // by schedule
	model  *model
	owners []*owner
	lucky  atomic.Bool
	made   int // schedules
	id     int // of the last owner
}

// plan is what people have said about a schedule.
type plan struct {
	spec.Schedule
	deleted bool
}

func (r *random) play() {
	defer r.model.watch()()
	time.Sleep(time.Second) // the watch has begun
	for range 3 {
		r.define()
	}
	for range 40 {
		r.step()
		time.Sleep(time.Duration(r.rng.IntN(6000)) * time.Millisecond)
	}
	r.settle()
	r.model.check()
}

// note adds to what was done, for who reads a failure.
func (r *random) note(format string, args ...any) {
	r.story = append(r.story, time.Now().Format("15:04:05.000")+" "+fmt.Sprintf(format, args...))
}

// settle makes everything whole.
func (r *random) settle() {
	r.lucky.Store(true)
	for len(r.owners) > 0 {
		r.lose(0)
	}
	r.note("settle")
	last := r.own("last", nil)
	time.Sleep(time.Minute)
	r.model.remind(last)
	time.Sleep(3 * time.Minute)
	for name, p := range r.plans {
		if !p.deleted { // so that nothing is due at the end
			r.edit(name, func(s *spec.Schedule) { s.Paused = new(true) })
		}
	}
	time.Sleep(3 * time.Minute)
}

// step does one thing.
func (r *random) step() {
	switch draw := r.rng.IntN(24); {
	case draw < 5 && len(r.owners) < 2 || len(r.owners) == 0 && draw < 16:
		r.appear()
	case draw < 9 && len(r.owners) > 0:
		r.hurt(r.rng.IntN(len(r.owners)))
	case draw == 9 && len(r.plans) < 6:
		r.define()
	case draw == 11 && len(r.owners) > 0:
		r.model.remind(r.owners[0])
	case draw == 10:
		r.note("wait")
		time.Sleep(time.Duration(r.rng.IntN(120)) * time.Second)
	default:
		r.say()
	}
}

func (r *random) appear() {
	r.id++
	name := fmt.Sprint("o", r.id)
	r.note("start %s", name)
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), 0))
	r.owners = append(r.owners, r.own(name, func(w natstest.Write) natstest.Fault {
		if r.lucky.Load() || w.Reply == "" {
			return natstest.Pass
		}
		switch draw := rng.IntN(150); {
		case draw < 3:
			return natstest.LoseAnswer
		case draw == 3:
			return natstest.CutBefore
		case draw == 4:
			return natstest.CutAfter
		case draw == 5:
			r.model.holds(w)
			return natstest.Hold
		case draw == 6:
			return natstest.DownBefore
		case draw == 7:
			return natstest.DownAfter
		}
		return natstest.Pass
	}))
}

// lose ends an owner: it dies.
func (r *random) lose(i int) {
	o := r.owners[i]
	r.owners = append(r.owners[:i:i], r.owners[i+1:]...)
	o.link.Thaw()
	o.link.Down()
	o.stop()
	if r.rng.IntN(2) == 0 {
		o.link.Up()
		o.link.Release() // what it had sent lands late
	}
}

func (r *random) hurt(i int) {
	o, length := r.owners[i], time.Duration(r.rng.IntN(15_000))*time.Millisecond
	switch r.rng.IntN(5) {
	case 0:
		r.note("freeze %d for %v", i, length)
		o.link.Freeze()
		time.Sleep(length)
		o.link.Thaw()
	case 1:
		r.note("cut %d off for %v", i, length)
		o.link.Down()
		time.Sleep(length)
		o.link.Up()
	case 2:
		r.note("release what is held of %d", i)
		o.link.Up()
		o.link.Release()
	default:
		r.note("kill %d", i)
		r.lose(i)
	}
}

// say is something that people do.
func (r *random) say() {
	names := r.names()
	if len(names) == 0 {
		return
	}
	name := names[r.rng.IntN(len(names))]
	p := r.plans[name]
	draw := r.rng.IntN(12)
	switch {
	case p.deleted:
		r.note("define %s again", name)
		p.deleted = false
		r.edit(name, func(s *spec.Schedule) { s.Paused = nil })
	case draw == 0:
		r.note("delete %s", name)
		p.deleted = true
		r.drop(name)
		r.model.dropped(name)
	case draw < 4:
		paused := !p.IsPaused()
		r.note("pause %s: %v", name, paused)
		r.edit(name, func(s *spec.Schedule) { s.Paused = &paused })
	case draw == 4:
		every := r.every()
		r.note("%s: every %v", name, every)
		r.edit(name, func(s *spec.Schedule) { s.Every = every })
	case draw < 7:
		r.trigger(p, machine.ByHand)
	case draw < 9:
		r.trigger(p, machine.ByBackfill)
	default:
		r.again(name)
	}
}

func (r *random) names() []string {
	var names []string
	for i := range r.made {
		names = append(names, fmt.Sprint("s", i))
	}
	return names
}

func (r *random) every() spec.Duration {
	return spec.Duration([]time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 700 * time.Millisecond}[r.rng.IntN(5)])
}

func (r *random) define() {
	s := spec.Schedule{Name: fmt.Sprint("s", r.made), Job: "q.k", Every: r.every()}
	r.made++
	s.Misfire = []spec.Misfire{{}, {Policy: spec.MisfireSkip}, {Policy: spec.MisfireAll, Limit: 5}}[r.rng.IntN(3)]
	s.Overlap = []spec.Overlap{
		{}, {}, {Policy: spec.OverlapSkip}, {Policy: spec.OverlapAllow, Limit: 2}, {Policy: spec.OverlapQueue, Limit: 3}, {Policy: spec.OverlapCancelPrevious},
	}[r.rng.IntN(6)]
	if r.rng.IntN(4) == 0 {
		s.Jitter = spec.Duration(300 * time.Millisecond)
	}
	r.note("define %s: every %v, misfire %+v, overlap %+v", s.Name, s.Every, s.Misfire, s.Overlap)
	r.plans[s.Name] = &plan{Schedule: s}
	r.model.planned(s)
	r.edit(s.Name, func(*spec.Schedule) {})
}

// edit writes a definition, halfway between two ticks.
func (r *random) edit(name string, change func(*spec.Schedule)) {
	r.Helper()
	p := r.plans[name]
	change(&p.Schedule)
	r.apply(p.Schedule)
	r.model.defined(must(r.definitions.Get(r.Context(), scheduler.Key(name)))(r))
}

// trigger makes a job by hand, or by backfill.
func (r *random) trigger(p *plan, by machine.Maker) {
	r.Helper()
	now := machine.Millisecond(r.Clock.Now())
	if by == machine.ByBackfill {
		now = now.Truncate(time.Duration(p.Every)).Add(-time.Duration(r.rng.IntN(10)) * time.Duration(p.Every))
	}
	entry := must(r.definitions.Get(r.Context(), scheduler.Key(p.Name)))(r)
	def := must(scheduler.Compile(entry))(r)
	j := machine.Job{
		ID: def.ID(now, by), Kind: "q.k", State: machine.Pending, Created: r.Clock.Now(),
		Tick: &machine.Tick{Schedule: p.Name, At: now, By: by, Revision: entry.Revision, Turn: def.Overlap.Bounded()},
	}
	if def.Overlap.Bounded() {
		j.State, j.Wait, j.Due = machine.Scheduled, machine.WaitTurn, now
	}
	r.note("%s %s", by, j.ID)
	_, _, err := r.Submit(r.Context(), j)
	must(0, err)(r)
}

// again lets a job run once more that has ended.
func (r *random) again(name string) {
	r.Helper()
	for _, j := range r.ticks(name) {
		if j.State.Final() && j.State != machine.Skipped && r.rng.IntN(4) == 0 {
			r.note("redrive %s", j.ID)
			r.model.redriven(j.ID)
			_, err := r.Redrive(r.Context(), j.ID)
			must(0, err)(r)
			return
		}
	}
}

// work claims a job when it may be, and ends it some time later.
func (r *random) work(entry kv.Entry[machine.Job], takes time.Duration, fails bool) {
	ctx := context.Background()
	time.Sleep(time.Until(entry.Value.Due))
	for {
		entry, err := r.Get(ctx, entry.Key)
		j := entry.Value
		switch {
		case errors.Is(err, store.ErrNotFound) || j.State.Final() || j.State == machine.Running || j.Wait == machine.WaitTurn:
			return
		case err != nil:
			r.Error(err)
			return
		}
		if j.Unchecked() {
			declined, err := scheduler.OpenDefinitions(r.pub, ns, quiet).Declines(ctx, j)
			if err != nil {
				r.Error(err)
				return
			}
			if declined != nil {
				declined.At = time.Now().UTC()
				if r.apply1(entry, *declined) {
					return
				}
				continue
			}
		}
		now := time.Now().UTC()
		token := fmt.Sprint(entry.Key, "#", j.Attempt+1)
		if !r.apply1(entry, machine.Claimed{Claimant: machine.Claimant{Lease: machine.Lease{Node: "w", Incarnation: 1, Token: token}, At: now}}) {
			continue
		}
		time.Sleep(takes)
		for {
			entry := must(r.Get(ctx, entry.Key))(r)
			hold := machine.Hold{Token: token, At: time.Now().UTC()}
			var ev machine.Event = machine.Done{Hold: hold}
			if fails {
				ev = machine.Erred{Hold: hold, Final: true, Error: machine.Error{Message: "no"}}
			}
			if r.apply1(entry, ev) {
				return
			}
		}
	}
}

// apply1 applies an event to a stored job, and carries out what it owes then. It
// reports whether the job was still as it was.
func (r *random) apply1(entry kv.Entry[machine.Job], ev machine.Event) bool {
	next, err := entry.Value.Apply(ev)
	if err != nil {
		r.Errorf("%s: %v", entry.Key, err)
		return true
	}
	entry.Revision, err = r.jobs.Update(context.Background(), entry.Key, next, entry.Revision)
	if errors.Is(err, kv.ErrConflict) {
		return false
	}
	entry.Value = next
	if err == nil {
		err = r.Owe(context.Background(), entry)
	}
	if err != nil {
		r.Error(err)
	}
	return true
}
