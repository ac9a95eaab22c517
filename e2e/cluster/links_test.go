package cluster_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// faults returns what the ledger has on faults and their ends.
func faults(c *cluster.Cluster) (all []string) {
	for _, e := range c.Entries() {
		if e.What == ledger.Fault || e.What == ledger.Heal {
			all = append(all, string(e.What)+" "+e.Verb+" "+e.Process+" "+e.Peer)
		}
	}
	return all
}

// wantFaults checks what the ledger has on faults and their ends.
func wantFaults(t *testing.T, c *cluster.Cluster, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, faults(c)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// A node that is cut off knows it, also in its next life, and is back when the
// links heal.
func TestCut(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	w1.Cut()
	c.Await("w1 misses the server", func() bool { return !w1.Ready() })
	if out, err := c.Try("node", "list"); err != nil {
		t.Errorf("another one cannot reach the server: %s%v", out, err)
	}
	w1.Kill()
	w1.Start()
	c.Worker("w2", cluster.NodeOptions{})
	c.AwaitEnded(1)
	if w1.Ready() {
		t.Error("w1 is ready although it is cut off")
	}
	w1.HealLinks()
	c.Await("w1 is ready", w1.Ready)
	finish(t, c, "w1 lost", "w2 succeeded")
	wantFaults(t, c, "fault cut w1#1 ", "fault kill9 w1#1 ", "fault cut w1#2 ", "heal cut w1#2 ")
}

// A node whose connections are silent loses its job, and one that is slow does
// not.
func TestDrop(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	w1.Drop(c.Server(1))
	w2 := c.Worker("w2", cluster.NodeOptions{})
	w2.Delay(100 * time.Millisecond)
	c.AwaitStart("work.a0", 2)
	c.AwaitEnded(1)
	w1.HealLinks()
	w2.HealLinks()
	c.Await("w1 is ready", w1.Ready)
	finish(t, c, "w1 lost", "w2 succeeded")
	wantFaults(t, c, "fault drop w1#1 n1", "fault delay w2#1 ", "heal drop w1#1 n1", "heal delay w2#1 ")
}

// A server that is cut off from the others no longer leads, also for clients
// that still reach it, until the links heal.
func TestServerCut(t *testing.T) {
	t.Parallel()
	const jobs = "KV_mr_default_jobs"
	c := cluster.New(t, cluster.Options{Servers: 3})
	c.Serve("s1", cluster.NodeOptions{})
	c.Worker("w1", cluster.NodeOptions{})
	c.Settle()
	led := c.Leader(jobs)
	led.Cut()
	c.Await("another server leads", func() bool {
		now := c.Leader(jobs)
		return now != nil && now != led
	})
	c.Await("the one that is cut off knows that", func() bool { return !led.Leads(jobs) })
	c.Submit(cluster.Load{Prefix: "a", Count: 10, Work: actor.Work{For: 20}}).Await()
	c.AwaitEnded(10)
	led.HealLinks()
	c.Settle()
	c.Submit(cluster.Load{Prefix: "b", Count: 10, Work: actor.Work{For: 20}}).Await()
	c.AwaitEnded(20)
	c.Judge()
}
