package e2e_test

import (
	"cmp"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// Workers are killed during long jobs, and come back under the same ID, at once,
// after a moment and after their lease has ended, or under another one. No other
// worker has their queues. A second attempt runs the job to its end.
func TestReturn(t *testing.T) {
	tell(
		t,
		scenario{name: "worker", one: short, three: short, tell: func(t *testing.T, servers int) { returns(t, servers, false) }},
		scenario{name: "with the owner", one: short, three: full, tell: func(t *testing.T, servers int) { returns(t, servers, true) }},
	)
}

// comeback is how a worker comes back. Its queue has its name.
type comeback struct {
	name  string
	after func(lease time.Duration) time.Duration
	as    string // another ID, or empty
	exec  bool   // its handler is a script
}

// start starts the worker under an ID.
func (b comeback) start(c *cluster.Cluster, id string) *cluster.Node {
	o := cluster.NodeOptions{Queues: []string{b.name}, Early: true}
	if b.exec {
		return c.Exec(id, o)
	}
	return c.Worker(id, o)
}

// comebacks are in the order of their time.
var comebacks = []comeback{
	{name: "at-once", after: func(time.Duration) time.Duration { return 0 }},
	{name: "another", after: func(time.Duration) time.Duration { return 0 }, as: "substitute"},
	{name: "script", after: func(time.Duration) time.Duration { return 0 }, exec: true},
	{name: "soon", after: func(time.Duration) time.Duration { return 2 * time.Second }},
	{name: "later", after: func(lease time.Duration) time.Duration { return lease + 2*time.Second }},
}

// returns kills a worker for each way to come back, all at once.
func returns(t *testing.T, servers int, withOwner bool) {
	c := begin(t, cluster.Options{Servers: servers})
	owner := c.Serve("s1", cluster.NodeOptions{})
	takes := scale(0, 2*c.Lease, 10*time.Minute)
	nodes := map[string]*cluster.Node{}
	for _, b := range comebacks {
		c.Submit(cluster.Load{Queue: b.name, Prefix: "j", Count: 1, Work: actor.Work{For: ms(takes)}}).Await()
		nodes[b.name] = b.start(c, b.name)
	}
	awaitStarts(c, len(comebacks))
	killed := c.Ledger.Now()
	for _, n := range nodes {
		n.Kill()
	}
	if withOwner {
		owner.Kill()
		owner.Start()
	}
	passed := time.Duration(0)
	for _, b := range comebacks {
		c.After(b.after(c.Lease) - passed)
		passed = b.after(c.Lease)
		if b.as == "" {
			nodes[b.name].Start()
		} else {
			b.start(c, b.as)
		}
	}
	c.After(takes)
	c.AwaitEnded(len(comebacks))
	c.Judge()
	lives := livesOf(c)
	for _, b := range comebacks {
		l := lives[b.name+".j0"]
		if l == nil {
			t.Errorf("there is no job %s.j0", b.name)
			continue
		}
		l.tookOver(t, b.name, cmp.Or(b.as, b.name))
		if end := l.end(1); end.What != "" {
			t.Errorf("%s: the handler of the process that was killed ended %q %v after that", l.id, end.Outcome, since(killed, end))
		}
		if len(l.starts) == 2 {
			t.Logf("%s: attempt 2 began %v after the kill", b.name, since(killed, l.starts[1]))
		}
	}
}
