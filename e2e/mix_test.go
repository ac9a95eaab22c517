package e2e_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/oracle"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

var (
	mixDuration = flag.Duration("duration", 0, "for how long TestMix breaks things; default: as -scenarios says")
	mixSeed     = flag.Uint64("seed", 0, "of the first run of TestMix, odd ones have three servers; 0: a random one, unless -scenarios is quick")
	mixUntil    = flag.Int("until", 0, "do only the first so many steps of a run of TestMix; 0: all")
)

// longest is how long one run of the mix is. A longer mix is several, of seeds
// that follow each other.
const longest = 2 * time.Minute

// Everything at once, at random: several nodes, several queues, all kinds of
// work, users who change their minds, and faults that never are more than what
// the engine promises to survive. What is done follows from the seed; when it
// hits what, does not.
func TestMix(t *testing.T) {
	t.Parallel()
	duration := cmp.Or(*mixDuration, scale(20*time.Second, time.Minute, 10*time.Minute))
	random := rand.Uint64N(1 << 32)
	seed := cmp.Or(*mixSeed, scale(2, random, random)) // quick is always the same, on one server
	each := min(duration, longest)
	var all tally
	began := time.Now()
	for ok := true; ok && (all.runs == 0 || time.Since(began)+each <= duration); seed++ {
		ok = t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { all.add(play(t, seed, each)) })
	}
	if !t.Failed() {
		t.Logf("the mix: 0 violations, %s", &all)
	}
}

// play plays one run of the mix.
func play(t *testing.T, seed uint64, lasts time.Duration) tally {
	p := newPlan(seed, lasts)
	if n := *mixUntil; n > 0 {
		p.steps = p.steps[:min(n, len(p.steps))]
	}
	again := fmt.Sprintf("go test ./e2e -run TestMix -seed=%d -duration=%v", seed, lasts)
	t.Logf("%d servers, %d steps; again: %s", p.servers, len(p.steps), again)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: %s; only its first steps: -until=%d", again, len(p.steps)/2)
		}
	})
	m := &mix{
		t: t, c: begin(t, cluster.Options{Servers: p.servers, Seed: seed, MaxStore: 64 << 20}),
		nodes: map[string]*cluster.Node{}, ids: map[string]string{}, lives: map[string]int{}, away: map[string]bool{},
		calls: map[string]chan struct{}{}, did: tally{verbs: map[string]int{}}, began: time.Now(),
	}
	t.Cleanup(m.users.Wait)
	for _, seat := range seats {
		m.sit(seat)
	}
	m.tick(lasts)
	m.play(p.steps)
	m.calm(p.steps)
	m.did.figures = m.c.Judge()
	return m.did
}

// mix is one run that is being played.
type mix struct {
	t     *testing.T
	c     *cluster.Cluster
	nodes map[string]*cluster.Node // by seat
	ids   map[string]string        // of the nodes, by seat
	lives map[string]int           // how many nodes a seat has had
	heals []heal
	away  map[string]bool // seats whose process is to start again
	loads []*cluster.Node // submitters
	keeps []*cluster.Node // who keep the timetables
	began time.Time
	did   tally

	users sync.WaitGroup
	calls map[string]chan struct{} // of each thing: closed when its last call has ended
}

// heal is what is due later.
type heal struct {
	at time.Duration
	do func() bool // as in a verb
}

// sit puts a node with a new ID into a seat.
func (m *mix) sit(seat string) {
	m.lives[seat]++
	id := seat
	if n := m.lives[seat]; n > 1 {
		id = fmt.Sprintf("%s-%d", seat, n)
	}
	m.ids[seat] = id
	switch seat[0] {
	case 's':
		m.nodes[seat] = m.c.Serve(id, cluster.NodeOptions{Early: true})
	case 'w':
		m.nodes[seat] = m.c.Worker(id, cluster.NodeOptions{Early: true, Queues: queues[:3], Owner: seat == "w3"})
	case 'x':
		m.nodes[seat] = m.c.Exec(id, cluster.NodeOptions{Early: true, Queues: []string{shell}, Slots: 4})
	}
}

// timetables are schedules that tick all the time.
var timetables = []actor.Timetable{
	{Prefix: "plain", Count: 3, Queue: queues[0], Work: actor.Work{For: 100}, Definition: engine.Schedule{Every: spec.Duration(time.Second)}},
	{Prefix: "turns", Count: 2, Queue: queues[1], Work: actor.Work{For: 3000}, Definition: engine.Schedule{
		Every: spec.Duration(2 * time.Second), Overlap: spec.Overlap{Policy: spec.OverlapQueue, Limit: 2}, MaxAttempts: 1000,
	}},
	{Prefix: "cancels", Count: 1, Queue: queues[0], Work: actor.Work{For: 3000}, Definition: engine.Schedule{
		Cron: "*/2 * * * * *", Zone: "Europe/Berlin", Overlap: spec.Overlap{Policy: spec.OverlapCancelPrevious}, MaxAttempts: 1000,
	}},
	{Prefix: "shards", Count: 1, Queue: queues[1], Work: actor.Work{For: 200}, Definition: engine.Schedule{
		Every: spec.Duration(5 * time.Second), Shards: 3, MaxAttempts: 1000,
	}},
}

// tick has the schedules applied, and edited for so long.
func (m *mix) tick(lasts time.Duration) {
	for _, t := range timetables {
		t.Edits, t.For = 0.05*float64(t.Count), lasts
		m.keeps = append(m.keeps, m.c.Keep(t))
	}
}

// supervise starts again what sits there and has ended by itself, as commands may
// that are refused something when they start. The oracle knows who else may not.
func (m *mix) supervise() {
	for _, seat := range seats {
		if n := m.nodes[seat]; !m.away[seat] && !n.Alive() {
			n.Start()
		}
	}
}

// play does the steps, and heals each when it is over.
func (m *mix) play(steps []step) {
	for len(steps)+len(m.heals) > 0 {
		slices.SortStableFunc(m.heals, func(a, b heal) int { return cmp.Compare(a.at, b.at) })
		if len(steps) == 0 || len(m.heals) > 0 && m.heals[0].at <= steps[0].at {
			h := m.heals[0]
			m.heals = m.heals[1:]
			m.await(h.at)
			if !h.do() {
				m.heals = append(m.heals, heal{at: h.at + time.Second, do: h.do})
			}
			continue
		}
		m.await(steps[0].at)
		m.do(steps[0])
		steps = steps[1:]
	}
}

// await waits for a moment of the plan.
func (m *mix) await(at time.Duration) { m.c.After(time.Until(m.began.Add(at))) }

// do does one step.
func (m *mix) do(s step) {
	m.supervise()
	v := verbOf(s)
	if v.on == aSeat && m.away[s.target] {
		return // who was to end there takes longer than planned
	}
	m.c.Note(s.String())
	m.did.verbs[s.verb]++
	if s.verb == submit {
		m.submit(s)
		return
	}
	if undo := v.do(m, s); undo != nil {
		m.heals = append(m.heals, heal{at: s.at + s.last, do: undo})
	}
}

// submit submits a load.
func (m *mix) submit(s step) {
	if s.due > 0 {
		s.load.Args = append(slices.Clone(s.load.Args), "--at="+time.Now().Add(s.due).Format(time.RFC3339Nano))
	}
	m.loads = append(m.loads, m.c.Submit(s.load))
}

// call lets a user ask for something, after what users asked about the same
// thing before.
func (m *mix) call(about string, ask func() error) {
	before, ended := m.calls[about], make(chan struct{})
	m.calls[about] = ended
	m.users.Go(func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		if m.t.Context().Err() == nil {
			_ = ask() // the answer is in the ledger
		}
	})
}

// calm waits until nothing is done any more, takes back what users wished, and
// waits until all jobs have ended.
func (m *mix) calm(steps []step) {
	m.c.Note("calm")
	m.c.Settle()
	m.supervise()
	for _, load := range m.loads {
		load.Await()
	}
	m.users.Wait()
	for _, n := range m.keeps {
		m.c.Kept(n)
	}
	for _, queue := range queues {
		m.insist("queue "+queue+" goes on", func() error { return m.c.Resume(queue) })
	}
	m.insist("there is no limit", func() error { return m.c.Limit(narrow, 0) })
	for _, seat := range workers {
		m.insist("node "+m.ids[seat]+" takes jobs", func() error { m.supervise(); return m.c.Undrain(m.ids[seat]) })
	}
	jobs := 0
	for _, s := range steps {
		jobs += s.load.Count
		for i := range s.load.Count {
			if s.load.Work.Stall { // it never ends by itself
				job := fmt.Sprintf("%s.%s%d", s.load.Queue, s.load.Prefix, i)
				m.c.Await("job "+job+" is cancelled", func() bool {
					err := m.c.Cancel(job)
					return err == nil || strings.Contains(err.Error(), "already")
				})
			}
		}
	}
	m.c.AwaitEnded(jobs)
	m.c.Rest(timetables...)
}

// insist asks until the answer is yes.
func (m *mix) insist(what string, ask func() error) {
	m.c.Await(what, func() bool { return ask() == nil })
}

// tally is what runs of the mix came to.
type tally struct {
	runs    int
	verbs   map[string]int // steps that were done
	figures oracle.Figures // of one run
	jobs    int
	starts  int // of handlers
}

// add adds what a run came to.
func (a *tally) add(b tally) {
	a.runs++
	a.jobs += b.figures.Jobs
	a.starts += b.figures.Runs
	if a.verbs == nil {
		a.verbs = map[string]int{}
	}
	for name, n := range b.verbs {
		a.verbs[name] += n
	}
}

// String is the tally for people.
func (a *tally) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d jobs, whose handlers were started %d times, in %d runs\n", a.jobs, a.starts, a.runs)
	for _, v := range verbs {
		fmt.Fprintf(&text, "  %-18s %d\n", v.name, a.verbs[v.name])
	}
	return text.String()
}
