package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// burden is what a cluster has to do while something fails: short jobs all the
// time, some that fail once, so that timers have work too, and some that run
// through the fault.
type burden struct {
	t          *testing.T
	c          *cluster.Cluster
	rounds     int
	submitters []*cluster.Node
}

// staff starts two nodes that serve and two that work, so that either can go,
// and returns what they will be given to do.
func staff(t *testing.T, c *cluster.Cluster) *burden {
	t.Helper()
	for _, name := range []string{"s1", "s2"} {
		c.Serve(name, cluster.NodeOptions{})
	}
	for _, name := range []string{"w1", "w2"} {
		c.Worker(name, cluster.NodeOptions{Slots: 20})
	}
	return &burden{t: t, c: c}
}

// add has jobs submitted for about so long, and does not wait for that.
func (b *burden) add(lasts time.Duration) {
	b.t.Helper()
	b.rounds++
	name := func(kind string) string { return fmt.Sprintf("%s%d-", kind, b.rounds) }
	seconds := int(lasts.Seconds())
	for _, load := range []cluster.Load{
		{Prefix: name("short"), Count: 15 * seconds, Rate: 15, Work: actor.Work{For: 200}},
		{Prefix: name("flaky"), Count: 3 * seconds, Rate: 3, Work: actor.Work{For: 100, Fail: 1}},
		{Prefix: name("long"), Count: seconds, Rate: 1, Work: actor.Work{For: scale(2000, 7000, 7000)}},
	} {
		load.MaxAttempts = 1000
		b.submitters = append(b.submitters, b.c.Submit(load))
	}
}

// fault is something that is done under load, and undone.
type fault struct {
	name string
	do   func()
	// undo heals it, when work goes on in spite of it. Without one, do has done
	// so itself.
	undo func()
}

// bear bears a fault under load, and prints how long it took until a job that was
// submitted afterwards ran.
func (b *burden) bear(f fault) {
	b.t.Helper()
	b.c.Note(f.name)
	b.add(10 * time.Second)
	b.c.After(2 * time.Second)
	f.do()
	b.probe("after " + f.name)
	if f.undo != nil {
		f.undo()
		b.probe("healed from " + f.name)
	}
	b.c.Settle()
}

// probe submits a job, waits until it has started, and prints how long that took.
func (b *burden) probe(what string) {
	b.t.Helper()
	b.rounds++
	from := time.Now()
	prefix := fmt.Sprintf("probe%d-", b.rounds)
	b.c.Submit(cluster.Load{Prefix: prefix, Count: 1, MaxAttempts: 1000})
	start := b.c.AwaitEntry("a job starts "+what, func(e ledger.Entry) bool {
		return e.What == ledger.Start && e.Job == "work."+prefix+"0"
	})
	b.t.Logf("%s: a new job started after %v", what, start.Time().Sub(from).Round(10*time.Millisecond))
}

// finish waits until all that was accepted has ended, and has it judged.
func (b *burden) finish() {
	b.t.Helper()
	for _, s := range b.submitters {
		s.Await()
	}
	b.c.AwaitEnded(len(accepted(b.c.Entries())))
	b.c.Judge()
}

// accepted is the jobs of which somebody was told that they are there.
func accepted(entries []ledger.Entry) map[string]bool {
	jobs := map[string]bool{}
	for _, e := range entries {
		if e.What == ledger.Call && e.Verb == ledger.Submit && (e.Outcome == ledger.Created || e.Outcome == ledger.Attached) {
			jobs[e.Job] = true
		}
	}
	return jobs
}
