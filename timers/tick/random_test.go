package tick

import (
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

var (
	seeds   = flag.Int("seeds", 150, "how many random programs TestRandom runs")
	oneSeed = flag.Uint64("seed", 0, "run this random program alone, and tell what happens")
)

// Random schedules, users and workers, and owners who die, stand still, look at what
// is old and lose answers, at any point. Whatever happens, the records are what
// [check] says.
func TestRandom(t *testing.T) {
	t.Parallel()
	if *oneSeed != 0 {
		run(t, *oneSeed, t.Logf)
		return
	}
	for seed := range *seeds {
		if run(t, uint64(seed)+1, nil); t.Failed() {
			return
		}
	}
}

func run(t *testing.T, seed uint64, log func(string, ...any)) {
	t.Helper()
	p := newProgram(seed, log)
	p.begin()
	p.finish()
	p.check()
	if trouble := p.trouble; len(trouble) > 0 {
		t.Errorf("seed %d: %s\n%s", seed, p.what, strings.Join(trouble[:min(len(trouble), 5)], "\n"))
	}
}

// program is a random program, and the world that it changes.
type program struct {
	*world
	rng  *rand.Rand
	log  func(string, ...any)
	what string // the features in it
	most int    // that may go on

	wild     bool // users edit the schedule
	moves    bool // and its calendar, queue or life
	byHand   bool // users trigger, backfill, retry
	rapid    bool // many ticks come while one job is cancelled, and less happens otherwise
	period   time.Duration
	schedule spec.Schedule

	owners []*actor // the last one may have the lease
	steps  int
	until  time.Time // when begin is over
	unmade int       // steps after which a tick waited without a record
}

// actor is an owner that can be stopped anywhere.
type actor struct {
	*owner
	next func() (struct{}, bool)
	kill func()
	dead bool
}

func newProgram(seed uint64, log func(string, ...any)) *program {
	p := &program{world: newWorld(), rng: rand.New(rand.NewPCG(seed, 8)), log: log}
	if log == nil {
		p.log = func(string, ...any) {}
	}
	p.now = p.now.Add(time.Duration(p.rng.IntN(1e9)) | 1) // never at a tick
	p.period = pick(p, 100*time.Millisecond, time.Second, 10*time.Second, time.Minute)
	if p.rapid = p.one(4); p.rapid {
		p.period = 100 * time.Millisecond
	}
	s := spec.Schedule{Name: "s", Job: "r.b", Every: spec.Duration(p.period)}
	if p.one(5) {
		s.Every, s.After = 0, spec.Duration(p.period)
	}
	s.Overlap = pick(p, spec.Overlap{}, spec.Overlap{Policy: spec.OverlapSkip}, spec.Overlap{Policy: spec.OverlapAllow, Limit: 2},
		spec.Overlap{Policy: spec.OverlapQueue, Limit: 2}, spec.Overlap{Policy: spec.OverlapCancelPrevious})
	if p.rapid {
		s.Overlap = spec.Overlap{Policy: spec.OverlapCancelPrevious}
	}
	s.Misfire = pick(p, spec.Misfire{}, spec.Misfire{Policy: spec.MisfireSkip}, spec.Misfire{Policy: spec.MisfireAll},
		spec.Misfire{Policy: spec.MisfireAll, Limit: 3}, spec.Misfire{Policy: spec.MisfireAll, Window: spec.Duration(2 * time.Minute)})
	if p.one(4) {
		s.MaxRuns = int64(1 + p.rng.IntN(30))
	}
	if p.one(4) {
		s.PauseAfterFailures = 1 + p.rng.IntN(3)
	}
	if p.one(4) && s.After == 0 {
		s.Jitter = s.Every
	}
	if p.one(4) && s.After == 0 { // most ticks have no input
		s.Input = json.RawMessage(pick(p, `{"n": "${1 / (tick.number % 7)}"}`, `{"n": "${tick.number % 150 == 0 ? 1 : 1 / (tick.number - tick.number)}"}`))
	}
	p.wild, p.byHand = p.one(2), p.one(2)
	p.moves = p.wild && p.one(3)
	p.schedule = s
	text, _ := json.Marshal(s)
	p.what = fmt.Sprintf("%s wild=%t moves=%t byHand=%t rapid=%t", text, p.wild, p.moves, p.byHand, p.rapid)
	p.log("%s", p.what)
	return p
}

func (p *program) one(in int) bool { return p.rng.IntN(in) == 0 }

func pick[T any](p *program, list ...T) T { return list[p.rng.IntN(len(list))] }

// begin lets everything happen, for some hundred ticks or less.
func (p *program) begin() {
	p.put(p.schedule)
	ticks := 20 + p.rng.IntN(100)
	if p.rapid {
		ticks *= 8
	}
	p.until = p.now.Add(p.period * time.Duration(ticks))
	for p.now.Before(p.until) && p.steps < 20_000 {
		p.steps++
		switch n := p.rng.IntN(1000); {
		case n < 20 && p.rapid && !p.one(4):
		case n < 4:
			p.depose()
		case n < 6:
			p.crash()
		case n < 8:
			p.outage()
		case n < 20:
			p.user()
		case n < 60:
			p.elect()
		case n < 200:
			p.work()
		case n < 260:
			p.old()
		default:
			p.own()
		}
	}
}

// own lets the owner go on, or time pass if it has nothing to do.
func (p *program) own() {
	a := p.current()
	switch {
	case a != nil && !a.idle():
		if _, ok := a.next(); !ok {
			a.dead = true
		}
		p.now = p.now.Add(time.Duration(p.rng.IntN(2e6)))
		if p.one(150) && (!p.rapid || p.one(4)) { // amid what it does
			p.outage()
		}
	case a == nil:
		p.now = p.now.Add(time.Duration(p.rng.Int64N(int64(p.period))))
		p.elect()
	default:
		next := earlier(a.rests, p.now.Add(p.period))
		p.now = latest(p.now, next).Add(time.Duration(p.rng.IntN(3e6)))
	}
}

func (p *program) current() *actor {
	if n := len(p.owners); n > 0 && p.owners[n-1].id == p.leader && !p.owners[n-1].dead {
		return p.owners[n-1]
	}
	return nil
}

// elect makes somebody the owner, unless there is one.
func (p *program) elect() {
	if p.current() != nil {
		return
	}
	p.sequence++
	a := &actor{owner: &owner{w: p.world, id: int(p.sequence)}}
	p.leader = a.id
	a.lag = func() time.Duration { return time.Duration(p.rng.IntN(20e6)) }
	a.lost = func() bool { return p.one(50) }
	a.old = func() bool { return p.one(4) }
	a.said = p.judge
	a.owner.log = p.log
	a.next, a.kill = iter.Pull(func(yield func(struct{}) bool) {
		a.pause = func() bool { return yield(struct{}{}) }
		a.serve()
	})
	p.owners = append(p.owners, a)
	p.log("%s owner %d", p.clock(), a.id)
}

// depose takes the lease from an owner, which goes on with what it has begun.
func (p *program) depose() {
	p.log("%s owner %d is deposed", p.clock(), p.leader)
	p.leader = 0
	if len(p.owners) > 3 {
		p.owners[0].kill()
		p.owners = p.owners[1:]
	}
}

// crash kills the owner wherever it is.
func (p *program) crash() {
	if a := p.current(); a != nil {
		p.log("%s owner %d dies", p.clock(), p.leader)
		a.dead = true
		a.kill()
		p.leader = 0
	}
}

// outage is a time without an owner.
func (p *program) outage() {
	p.crash()
	p.leader = 0
	p.now = p.now.Add(time.Duration(p.rng.Int64N(int64(p.period) * 30)))
	if p.one(3) {
		gap := time.Duration(p.rng.IntN(300)) * time.Second
		p.now, p.until = p.now.Add(gap), p.until.Add(gap)
	}
}

// old lets an owner go on that was deposed.
func (p *program) old() {
	if len(p.owners) == 0 {
		return
	}
	if a := pick(p, p.owners...); !a.dead && a.id != p.leader {
		if _, ok := a.next(); !ok {
			a.dead = true
		}
	}
}

// takes returns how long a job takes.
func (p *program) takes() time.Duration {
	periods := int64(3)
	if p.rapid {
		periods = pick(p, 3, int64(300))
	}
	return time.Duration(p.rng.Int64N(int64(p.period) * periods))
}

// work lets jobs begin and end.
func (p *program) work() {
	for _, id := range p.ids {
		switch j := p.jobs[id]; {
		case p.ready(j.job) && !p.one(3):
			p.claim(id, p.takes(), p.one(3))
			p.log("%s %s is %s", p.clock(), id, j.job.State)
		case j.job.State == machine.Running && !j.ends.After(p.now):
			p.end(id)
			p.log("%s %s is %s", p.clock(), id, j.job.State)
		}
	}
}

// finish lets an owner and the workers come to rest, without faults.
func (p *program) finish() {
	p.crash()
	if p.def == nil || p.def.IsPaused() {
		s, paused := p.schedule, false
		s.Paused = &paused
		p.put(s)
	}
	for range 3 {
		p.rest()
		p.now = p.now.Add(max(p.period*3, pick(p, 0, 20*time.Second, 2*time.Minute)))
	}
	s := p.schedule // no more ticks
	s.End = p.now
	p.put(s)
	p.rapid = false
	for range 10 {
		p.rest()
		p.now = p.now.Add(p.period)
	}
	for range 200 {
		if p.rest(); !p.anyLeft() {
			break
		}
		p.now = p.now.Add(max(p.period, time.Second))
	}
	p.now = p.now.Add(2 * time.Minute)
	p.rest()
}

// anyLeft reports whether a job has not ended.
func (p *program) anyLeft() bool {
	return slices.ContainsFunc(p.ids, func(id string) bool { return !p.jobs[id].job.State.Final() })
}

// rest lets the owner do what there is to do now.
func (p *program) rest() {
	for range 30_000 {
		p.elect()
		a := p.current()
		a.lost, a.old = func() bool { return false }, func() bool { return false }
		if a.idle() {
			before := p.heard
			p.work()
			if a.idle() && p.heard == before {
				return
			}
			continue
		}
		if _, ok := a.next(); !ok {
			a.dead = true
		}
	}
	p.fault("it does not come to rest")
}

// judge looks at one step of an owner.
func (p *program) judge(was Cursor, f Facts, d *Definition, s Step) {
	if again := d.Advance(was, f); !reflect.DeepEqual(again, s) {
		p.fault("the same facts lead to %+v, and to %+v", s, again)
	}
	if len(s.Acts) > 2*maxActs+20 {
		p.fault("a step of %d acts", len(s.Acts))
	}
	p.judgeUnmade(was, f, d, s)
	if most, wait := d.Overlap.Turns(); most > 0 && d.Revision >= s.Cursor.Revision && len(p.history) == 1 {
		if len(s.Cursor.Holders) > most || len(s.Cursor.Queue) > wait {
			p.fault("%s: %d go on and %d wait, most are %d and %d", p.clock(), len(s.Cursor.Holders), len(s.Cursor.Queue), most, wait)
		}
	}
	for _, a := range s.Acts {
		p.log("%s   %s %s %s", p.clock(), a.Do, a.ID, a.Code)
		if (a.Do == Make || a.Do == Wait || a.Do == Decline) && a.At.After(p.now) {
			p.fault("%s: the tick of %v is early", p.clock(), a.At)
		}
	}
	if p.most > 0 && p.going > p.most {
		p.fault("%s: %d go on, and %d may", p.clock(), p.going, p.most)
	}
}

// judgeUnmade checks that a tick without a record waits alone, and for others that go
// on, and is made once they have ended.
func (p *program) judgeUnmade(was Cursor, f Facts, d *Definition, s Step) {
	if u := was.Unmade; u != nil && was.Revision == d.Revision && allEnded(was.Holders, f.Ended) {
		if !slices.ContainsFunc(s.Acts, func(a Act) bool { return a.Do == Make && a.ID == u.ID }) {
			p.fault("%s: it is the turn of %s, which is not made", p.clock(), u.ID)
		}
	}
	c := s.Cursor
	if c.Unmade == nil {
		return
	}
	p.unmade++
	switch {
	case len(c.Queue) > 0:
		p.fault("%s: %s waits without a record, and so do %v", p.clock(), c.Unmade.ID, c.Queue)
	case len(c.Holders) == 0 && (s.Due.IsZero() || s.Due.After(p.now)):
		p.fault("%s: %s waits for nobody", p.clock(), c.Unmade.ID)
	}
}

func allEnded(ids []string, ends []End) bool {
	return !slices.ContainsFunc(ids, func(id string) bool {
		return !slices.ContainsFunc(ends, func(e End) bool { return e.ID == id })
	})
}

func (p *program) clock() string { return p.now.Format("04:05.000000") }
