package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/cluster"
)

// plan is what is done in one run of the mix. It follows from the seed and the
// duration alone.
type plan struct {
	servers int
	steps   []step
}

// step is one thing that is done: work is submitted, a user calls, or something
// breaks.
type step struct {
	at     time.Duration // from the start of the mix
	verb   string
	target string        // a seat, a server, a stream, a queue or a job; empty for all servers
	last   time.Duration // until it is healed, or starts again
	peer   int           // of a link: the server at its other end, 0 for all
	count  int           // of a limit: the places; of a delay: milliseconds
	load   cluster.Load  // of a submission
	due    time.Duration // of its jobs: so much after they are submitted
}

// String is the step for people.
func (s step) String() string {
	text := fmt.Sprintf("%6.2fs %s %s", s.at.Seconds(), s.verb, s.target)
	if s.last > 0 {
		text += fmt.Sprintf(" for %.2fs", s.last.Seconds())
	}
	if s.peer > 0 {
		text += fmt.Sprintf(", from n%d", s.peer)
	}
	if s.count > 0 {
		text += fmt.Sprintf(", by %d", s.count)
	}
	if s.verb == submit {
		text += fmt.Sprintf("%s: %d jobs, due after %v %+v", s.load.Prefix, s.load.Count, s.due, s.load.Work)
	}
	return strings.TrimSpace(text)
}

// The seats: what sits there is killed, and another process follows. Two serve,
// three are Go workers, the last one is a worker whose handlers are programs.
var seats = []string{"s1", "s2", "w1", "w2", "w3", "x1"}

// workers are the seats that run jobs.
var workers = seats[2:]

// The queues. The Go workers serve all but the shell's; narrow has limits.
const (
	narrow = "narrow"
	shell  = "shell"
)

var queues = []string{"mail", "film", narrow, shell}

// leaders are the streams whose leaders are killed.
var leaders = []string{
	"KV_mr_default_jobs", "mr_default_work", "mr_default_timers",
	"KV_mr_default_nodes", "KV_mr_default_leases", "KV_mr_default_config",
}

const (
	rest   = 3 * time.Second // for which servers are left alone after a fault, and everybody at the end
	broken = 3               // seats at once, at most
)

// planner is a plan that is being made.
type planner struct {
	plan
	random *rand.Rand
	end    time.Duration // when all is healed
	lease  time.Duration
	now    time.Duration
	busy   map[string]time.Duration // until when something is left alone
}

// newPlan makes the plan of a run of the mix. Odd seeds have three servers.
func newPlan(seed uint64, lasts time.Duration) plan {
	p := &planner{random: rand.New(rand.NewPCG(seed, 0)), end: lasts - rest, busy: map[string]time.Duration{}}
	p.servers, p.lease = 1, 6*time.Second
	pace := 2 * time.Second
	if seed%2 == 1 {
		p.servers, p.lease, pace = 3, 15*time.Second, 4*time.Second
	}
	for due := time.Duration(0); p.now < p.end; p.now += p.upTo(pace) {
		if p.now >= due {
			p.submit()
			due = p.now + p.upTo(2*pace)
		}
		p.disturb(p.draw())
	}
	return p.plan
}

// upTo returns a random part of d, more often a small one.
func (p *planner) upTo(d time.Duration) time.Duration {
	return time.Duration(float64(d) * p.random.Float64() * p.random.Float64()).Round(time.Millisecond)
}

// pick returns one of several.
func (p *planner) pick(from []string) string { return from[p.random.IntN(len(from))] }

// draw returns a verb, the heavier the more often.
func (p *planner) draw() verb {
	sum := 0
	for _, v := range verbs {
		sum += v.weight
	}
	n := p.random.IntN(sum)
	for _, v := range verbs {
		if n -= v.weight; n < 0 {
			return v
		}
	}
	panic("no verb has a weight")
}

// disturb adds a step, unless what it is about is left alone for now.
func (p *planner) disturb(v verb) {
	target, key := p.target(v.on)
	least, most := p.leases(v.least), p.leases(v.most)
	last := min(least+p.upTo(most-least), p.end-p.now)
	switch {
	case v.three && p.servers < 3,
		last < least,
		p.busy[key] > p.now,
		v.on == aSeat && p.brokenSeats() >= broken:
		return
	}
	s := step{at: p.now, verb: v.name, target: target, last: last}
	switch v.name {
	case cut, drop, delay:
		s.peer = p.random.IntN(p.servers + 1)
	}
	switch v.name {
	case delay:
		s.count = 10 + p.random.IntN(600)
	case limit:
		s.count = 1 + p.random.IntN(4)
	}
	p.steps = append(p.steps, s)
	p.busy[key] = p.now + last
	if key == "servers" {
		p.busy[key] += rest
	}
}

// leases is n leases.
func (p *planner) leases(n float64) time.Duration { return time.Duration(n * float64(p.lease)) }

// target draws what a step is about. Of the same key there is one at a time, or
// any number if the key is empty.
func (p *planner) target(on kind) (target, key string) {
	switch on {
	case aSeat:
		target = p.pick(seats)
		return target, target
	case aWorker:
		target = p.pick(workers)
		return target, "node of " + target
	case aServer:
		return fmt.Sprint("n", 1+p.random.IntN(p.servers)), "servers"
	case aLeader:
		return p.pick(leaders), "servers"
	case allServers:
		return "", "servers"
	case aQueue:
		target = p.pick(queues)
		return target, "pause of " + target
	case aLimit:
		return narrow, "limit of " + narrow
	default:
		return p.job(), ""
	}
}

// brokenSeats counts the seats with a fault.
func (p *planner) brokenSeats() (n int) {
	for _, seat := range seats {
		if p.busy[seat] > p.now {
			n++
		}
	}
	return n
}

// job draws a job: of one of the last loads, or of one some time ago. Not each
// of them is there yet.
func (p *planner) job() string {
	var loads []cluster.Load
	for _, s := range p.steps {
		if s.verb == submit {
			loads = append(loads, s.load)
		}
	}
	l := loads[max(0, len(loads)-1-p.random.IntN(6))]
	return fmt.Sprintf("%s.%s%d", l.Queue, l.Prefix, p.random.IntN(l.Count))
}

// submit adds a load.
func (p *planner) submit() {
	l := loads[p.random.IntN(len(loads))]
	l.Queue = p.pick(queues)
	if l.Work.Stall {
		l.Queue = p.pick(queues[:3]) // the shell's handler does not stall
	}
	l.Count = 1 + p.random.IntN(l.Count)
	l.Prefix = fmt.Sprintf("%d-", len(p.steps))
	l.Rate = []float64{0, 10, 50}[p.random.IntN(3)]
	s := step{at: p.now, verb: submit, target: l.Queue, load: l}
	if p.random.IntN(4) == 0 {
		s.due = min(p.upTo(2*p.lease), p.end-p.now)
	}
	p.steps = append(p.steps, s)
}

// A plan follows from its seed, has every verb, breaks no more than it may, and
// has healed everything some time before its end.
func TestPlan(t *testing.T) {
	t.Parallel()
	const lasts = 2 * time.Minute
	seen := map[string]int{}
	for seed := range uint64(40) {
		p := newPlan(seed, lasts)
		if diff := cmp.Diff(p, newPlan(seed, lasts), cmp.AllowUnexported(plan{}, step{})); diff != "" {
			t.Fatalf("seed %d makes two plans:\n%s", seed, diff)
		}
		for n, s := range p.steps {
			seen[s.verb]++
			if err := p.allows(n); err != nil {
				t.Errorf("seed %d: %s: %v", seed, s, err)
			}
			if s.at+s.last > lasts-rest {
				t.Errorf("seed %d: %s is not healed %v before the end", seed, s, rest)
			}
		}
	}
	for _, v := range verbs {
		if seen[v.name] == 0 {
			t.Errorf("no plan has a step %q", v.name)
		}
	}
	t.Logf("steps of 40 plans: %v", seen)
}

// allows returns what is wrong with a step next to those before it.
func (p plan) allows(n int) error {
	s := p.steps[n]
	atOnce := 0
	for _, before := range p.steps[:n] {
		over := before.at + before.last
		switch {
		case s.onServers() && before.onServers() && s.at < over+rest:
			return fmt.Errorf("servers have a fault already: %s", before)
		case s.onSeat() && before.onSeat() && s.at < over && s.target == before.target:
			return fmt.Errorf("it has a fault already: %s", before)
		case before.onSeat() && s.at < over:
			atOnce++
		}
	}
	if s.onSeat() && atOnce >= broken {
		return fmt.Errorf("%d seats have a fault already", atOnce)
	}
	return nil
}

func (s step) onSeat() bool { return verbOf(s).on == aSeat }

func (s step) onServers() bool {
	return slices.Contains([]kind{aServer, aLeader, allServers}, verbOf(s).on)
}
