package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// The oracle notices bugs of the engine, which package internal/bug puts there on
// purpose. The same story without the bug breaks no promise.
func TestBugs(t *testing.T) {
	tell(t, slices.Concat(
		bugged("ack-first", "I4", ackFirst),
		bugged("take-over", "I3", takeOver),
		bugged("forget", "I4", forget),
		bugged("save-first", "I2", saveFirst),
	)...)
}

// bugged is a story with a bug, by which a promise is broken, and without.
func bugged(bug, invariant string, story func(*cluster.Cluster)) []scenario {
	return []scenario{
		{bug, short, never, func(t *testing.T, servers int) {
			c := begin(t, cluster.Options{Servers: servers, Tags: "bugs", Env: []string{"MILLRACE_BUG=" + bug}})
			story(c)
			found := c.Hear()
			noticed := slices.IndexFunc(found, func(v oracle.Violation) bool { return v.Invariant == invariant })
			if noticed < 0 {
				t.Fatalf("the oracle did not notice the bug %s: it found %v, want %s among it", bug, found, invariant)
			}
			t.Logf("one of %d violations:\n%v", len(found), found[noticed])
		}},
		{"no " + bug, short, never, func(t *testing.T, servers int) {
			c := begin(t, cluster.Options{Servers: servers, Tags: "bugs"})
			story(c)
			c.Judge()
		}},
	}
}

// A worker is killed on a slow link, between an item and its claim.
func ackFirst(c *cluster.Cluster) {
	c.Serve("s1", cluster.NodeOptions{})
	w1 := c.Worker("w1", cluster.NodeOptions{Slots: 200})
	w1.Delay(250 * time.Millisecond)
	const jobs = 500
	c.Submit(cluster.Load{Prefix: "p", Count: jobs, Rate: 100, Work: actor.Work{For: 100}})
	c.AwaitStart("work.p150", 1)
	w1.Kill()
	c.Worker("w2", cluster.NodeOptions{Slots: 50})
	settle(c, jobs)
}

// Jobs run, and their items are delivered again, to a worker that has nothing to
// do: a queue that gets a limit is served anew.
func takeOver(c *cluster.Cluster) {
	c.Serve("s1", cluster.NodeOptions{})
	c.Worker("w1", cluster.NodeOptions{})
	const jobs = 10 // as many as w1 has slots
	c.Submit(cluster.Load{Prefix: "p", Count: jobs, Work: actor.Work{For: 8000}})
	for n := range jobs {
		c.AwaitStart(fmt.Sprint("work.p", n), 1)
	}
	c.Worker("w2", cluster.NodeOptions{})
	_ = c.Limit("work", 100) // what came of it is in the ledger
	settle(c, jobs)
}

// Jobs fail, and are due again a second later.
func forget(c *cluster.Cluster) {
	c.Serve("s1", cluster.NodeOptions{})
	c.Worker("w1", cluster.NodeOptions{})
	const jobs = 20
	c.Submit(cluster.Load{Prefix: "p", Count: jobs, Work: actor.Work{For: 50, Fail: 1}})
	settle(c, jobs)
}

// patient is how long a story with a bug goes on without one more job that ends:
// more than any promise gives the engine to make up for what was lost.
const patient = 45 * time.Second

// settle waits until all jobs have ended, or none ends any more.
func settle(c *cluster.Cluster, jobs int) {
	best, since := 0, time.Now()
	c.Await("nothing moves any more", func() bool {
		if n := c.Ended(jobs); n > best {
			best, since = n, time.Now()
		}
		return best >= jobs || time.Since(since) > patient
	})
	c.Note("it is over")
}

// Of the bugs, nothing is in the binary that people get.
func TestNoBugs(t *testing.T) {
	t.Parallel()
	binary, err := os.ReadFile(cluster.Millrace(t))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(binary, []byte("MILLRACE_BUG")) {
		t.Error("the binary, which was built without the tag bugs, looks for MILLRACE_BUG")
	}
}

// Owners are killed while many schedules tick.
func saveFirst(c *cluster.Cluster) {
	nodes := []*cluster.Node{c.Serve("s1", cluster.NodeOptions{}), c.Serve("s2", cluster.NodeOptions{})}
	c.Worker("w1", cluster.NodeOptions{Slots: 200})
	table := every("s", 300, time.Second, actor.Work{})
	c.Apply(table)
	for range 4 {
		c.After(time.Until(time.Now().Truncate(time.Second).Add(2*time.Second + 50*time.Millisecond)))
		killed := c.Ledger.Now()
		for _, n := range nodes {
			n.Kill()
			n.Start()
		}
		c.AwaitEntry("there is an owner", func(e ledger.Entry) bool { return e.What == ledger.Owner && e.Node != "" && e.At > killed })
	}
	c.After(5 * time.Second)
	c.Rest(table)
}
