package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// Workers are cut off from their servers while they run jobs, for longer than
// two leases. Their handlers' contexts end, another worker runs the jobs, and
// what the first ones say of them later is refused (I3).
func TestZombie(t *testing.T) {
	tell(
		t,
		scenario{name: "worker", one: quick, three: short, tell: zombies},
		scenario{name: "deputy", one: short, three: full, tell: zombieDeputy},
		scenario{name: "owner", one: short, three: full, tell: zombieOwner},
		scenario{name: "island", one: never, three: short, tell: zombieIsland},
	)
}

// Workers are cut off for up to a lease. Whether they keep theirs or not, nothing
// runs twice at once, and a moment changes nothing.
func TestFlicker(t *testing.T) {
	tell(t, scenario{name: "worker", one: short, three: full, tell: flickers})
}

// A worker gets a fifth of a CPU while its handlers burn all that they get. It
// keeps its lease, and nothing starts twice.
func TestStarved(t *testing.T) {
	tell(t, scenario{name: "worker", one: short, three: short, tell: starved})
}

// The jobs of each queue in a siege, by the first part of their local ID.
const (
	obeys = "obeys" // gives up when the lease is lost
	early = "early" // does not, and ends while its worker is cut off
	late  = "late"  // nor does this one, and it ends when its worker is back
	brief = "brief" // ends at once; many are being claimed and reported at the cut
)

// manyBrief is how many of the brief ones there are in each queue, within a
// second. Of the others there is one.
const manyBrief = 100

// siege is workers that are cut off while they run jobs, each those of the queue
// that has its name, and one that comes to their relief.
type siege struct {
	t     *testing.T
	c     *cluster.Cluster
	lasts time.Duration
	nodes map[string]*cluster.Node
	began int64 // when the first was cut off, as the ledger has it
	ended int64
}

// besiege starts a cluster for a siege that lasts so many leases at least.
func besiege(t *testing.T, servers, leases int) *siege {
	c := begin(t, cluster.Options{Servers: servers})
	lasts := time.Duration(leases)*c.Lease + 3*time.Second
	return &siege{t: t, c: c, nodes: map[string]*cluster.Node{}, lasts: max(lasts, scale(0, 0, time.Minute))}
}

// start starts a worker for each queue, and waits until the jobs of all of them
// run, and some of the brief ones have.
func (s *siege) start(o cluster.NodeOptions, queues ...string) {
	ahead := s.c.Lease + 2*time.Second // of the cut they start at most; early ends while that lasts all the same
	for _, queue := range queues {
		for prefix, work := range map[string]actor.Work{
			obeys: {For: ms(s.lasts + ahead)},
			early: {For: ms(s.c.Lease + ahead), Deaf: true},
			late:  {For: ms(s.lasts + ahead), Deaf: true},
		} {
			s.c.Submit(cluster.Load{Queue: queue, Prefix: prefix, Count: 1, Work: work}).Await()
		}
	}
	for _, queue := range queues {
		o.Queues, o.Early = []string{queue}, true
		s.nodes[queue] = s.c.Worker(queue, o)
	}
	awaitStarts(s.c, 3*len(queues))
	for _, queue := range queues {
		s.c.Submit(cluster.Load{Queue: queue, Prefix: brief, Count: manyBrief, Rate: manyBrief, Work: actor.Work{For: 20}})
	}
	awaitStarts(s.c, (3+manyBrief/4)*len(queues))
}

// settle waits until all jobs have ended, and has them judged.
func (s *siege) settle() map[string]*life {
	s.t.Helper()
	s.c.AwaitEnded((3 + manyBrief) * len(s.nodes))
	s.c.Judge()
	lives := livesOf(s.c)
	again := 0
	for id, l := range lives {
		if l.record.State != "succeeded" {
			s.t.Errorf("%s is %s, started on %v, want it succeeded", id, l.record.State, l.nodes())
		}
		if strings.Contains(id, "."+brief) {
			again += len(l.starts) - 1
		}
	}
	s.t.Logf("of %d brief handlers, %d ran again", manyBrief*len(s.nodes), again)
	return lives
}

// hold cuts off by begin, starts the relief, and ends it by end after a while.
func (s *siege) hold(begin, end func()) map[string]*life {
	s.t.Helper()
	s.began = s.c.Ledger.Now()
	begin()
	s.relieve()
	s.c.After(s.lasts)
	s.ended = s.c.Ledger.Now()
	end()
	return s.settle()
}

// relieve starts the worker that may take over.
func (s *siege) relieve() {
	var queues []string
	for queue := range s.nodes {
		queues = append(queues, queue)
	}
	s.c.Worker("relief", cluster.NodeOptions{Queues: queues, Slots: 10 * len(queues), Owner: true, Early: true})
}

// refused checks that the relief took the jobs of a queue over, and that nothing
// came of what their first worker said. A process that was frozen does not hear
// in time that its lease is lost.
func (s *siege) refused(lives map[string]*life, queue string, frozen bool) {
	s.t.Helper()
	for _, prefix := range []string{obeys, early, late} {
		l := lives[queue+"."+prefix+"0"]
		if l == nil {
			s.t.Errorf("there is no job %s.%s0", queue, prefix)
			continue
		}
		l.tookOver(s.t, queue, "relief")
		first, want := l.end(1), ledger.Succeeded
		if prefix == obeys {
			want = ledger.Obeyed
		}
		heard := first.Cause == ledger.LeaseLost || frozen && prefix == early
		if first.Outcome != want || !heard {
			s.t.Errorf("%s: the first handler ended %q, cause %q, want %q since the lease was lost", l.id, first.Outcome, first.Cause, want)
		}
		if prefix == late && first.At < s.ended || prefix != late && !frozen && first.At > s.ended {
			s.t.Errorf("%s: the first handler ended %v after its worker was back", l.id, since(s.ended, first))
		}
		if prefix == obeys && len(l.starts) == 2 {
			s.t.Logf("%s: the lease was lost after %v, attempt 2 began after %v", queue, since(s.began, first), since(s.began, l.starts[1]))
		}
	}
}

// tookOver checks that a job ran on one node, was lost there, and ended well on
// the other one.
func (l *life) tookOver(t *testing.T, from, to string) {
	t.Helper()
	type fate struct {
		State             string
		Attempt, Failures int
		Outcomes, Nodes   []string
		Accepted          string
	}
	got := fate{l.record.State, l.record.Attempt, l.record.Failures, l.outcomes(), l.nodes(), l.accepted()}
	want := fate{"succeeded", 2, 1, []string{"lost", "succeeded"}, []string{from, to}, to}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", l.id, diff)
	}
}

// zombies are workers whose links are cut, whose links pass nothing any more, and
// which are frozen.
func zombies(t *testing.T, servers int) {
	s := besiege(t, servers, 2)
	s.c.Serve("s1", cluster.NodeOptions{})
	queues := scale([]string{"cut"}, []string{"cut", "drop", "stop"}, []string{"cut", "drop", "stop"})
	s.start(cluster.NodeOptions{}, queues...)
	lives := s.hold(
		func() {
			for _, queue := range queues {
				n := s.nodes[queue]
				map[string]func(){"cut": func() { n.Cut() }, "drop": func() { n.Drop() }, "stop": n.Stop}[queue]()
			}
		},
		func() {
			for _, queue := range queues {
				n := s.nodes[queue]
				map[string]func(){"cut": n.HealLinks, "drop": n.HealLinks, "stop": n.Cont}[queue]()
			}
		},
	)
	for _, queue := range queues {
		s.refused(lives, queue, queue == "stop")
	}
}

// zombieDeputy is a worker that is the owner too, since no process serves.
func zombieDeputy(t *testing.T, servers int) {
	s := besiege(t, servers, 3)
	s.start(cluster.NodeOptions{Owner: true}, "cut")
	n := s.nodes["cut"]
	s.refused(s.hold(func() { n.Cut() }, n.HealLinks), "cut", false)
}

// zombieOwner is a worker that is cut off together with the owner.
func zombieOwner(t *testing.T, servers int) {
	s := besiege(t, servers, 3)
	owner := s.c.Serve("s1", cluster.NodeOptions{})
	s.start(cluster.NodeOptions{}, "drop")
	s.c.Serve("s2", cluster.NodeOptions{})
	n := s.nodes["drop"]
	lives := s.hold(func() { owner.Drop(); n.Drop() }, func() { owner.HealLinks(); n.HealLinks() })
	s.refused(lives, "drop", false)
}

// zombieIsland is a worker and the owner, which are connected, but to a server
// that is cut off from the other two.
func zombieIsland(t *testing.T, servers int) {
	s := besiege(t, servers, 3)
	owner := s.c.Serve("s1", cluster.NodeOptions{})
	s.start(cluster.NodeOptions{}, "island")
	s.c.Serve("s2", cluster.NodeOptions{})
	n := s.nodes["island"]
	lives := s.hold(
		func() {
			for _, n := range []*cluster.Node{owner, n} {
				n.Cut(s.c.Server(1), s.c.Server(2))
			}
			s.c.Server(3).Cut()
		},
		func() {
			s.c.Server(3).HealLinks()
			owner.HealLinks()
			n.HealLinks()
		},
	)
	s.refused(lives, "island", false)
}

// flickers are workers that are cut off for a part of a lease, each for another
// one.
func flickers(t *testing.T, servers int) {
	s := besiege(t, servers, 0)
	s.c.Serve("s1", cluster.NodeOptions{})
	shares := map[string]float64{"third": 1. / 3, "half": 0.5, "two-thirds": 2. / 3, "most": 0.85, "lease": 1}
	var queues []string
	for queue := range shares {
		queues = append(queues, queue)
	}
	slices.SortFunc(queues, func(a, b string) int { return int(1000 * (shares[a] - shares[b])) })
	s.start(cluster.NodeOptions{}, queues...)
	began := time.Now()
	for _, queue := range queues {
		s.nodes[queue].Cut()
	}
	s.relieve()
	for _, queue := range queues {
		until := time.Duration(shares[queue] * float64(s.c.Lease))
		s.c.After(time.Until(began.Add(until)))
		s.nodes[queue].HealLinks()
	}
	for id, l := range s.settle() {
		if l.record.Queue == "third" && len(l.starts) != 1 {
			t.Errorf("%s was started on %v, want it started once: its worker was cut off for a moment only", id, l.nodes())
		}
	}
}

// starved is a worker that is stopped most of the time.
func starved(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.Serve("s1", cluster.NodeOptions{})
	const jobs = 4
	burns := scale(0, 3*c.Lease, 90*time.Second)
	c.Submit(cluster.Load{Prefix: "j", Count: jobs, Work: actor.Work{For: ms(burns), Burn: true, Deaf: true}}).Await()
	w1 := c.Worker("w1", cluster.NodeOptions{})
	awaitStarts(c, jobs)
	stop := w1.Throttle(0.2)
	c.Worker("w2", cluster.NodeOptions{})
	c.AwaitEnded(jobs)
	stop()
	c.Judge()
	for _, l := range livesOf(c) {
		if !slices.Equal(l.nodes(), []string{"w1"}) || l.record.State != "succeeded" || l.record.Failures != 0 {
			t.Errorf("%s is %s after %d failures, started on %v, want it succeeded on w1 without any", l.id, l.record.State, l.record.Failures, l.nodes())
		}
	}
}
