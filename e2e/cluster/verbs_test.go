package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// begin starts a cluster on which the job work.a0 runs on w1, for so long.
func begin(t *testing.T, lasts time.Duration) (*cluster.Cluster, *cluster.Node) {
	t.Helper()
	c := cluster.New(t, cluster.Options{})
	c.Serve("s1", cluster.NodeOptions{})
	w1 := c.Worker("w1", cluster.NodeOptions{})
	c.Submit(cluster.Load{Prefix: "a", Count: 1, Work: actor.Work{For: int(lasts.Milliseconds())}}).Await()
	c.AwaitStart("work.a0", 1)
	return c, w1
}

// finish waits until the job has ended, and checks on which nodes its attempts
// were, how they ended, and all else.
func finish(t *testing.T, c *cluster.Cluster, attempts ...string) {
	t.Helper()
	c.AwaitEnded(1)
	c.WantAttempts(attempts...)
	c.Judge()
}

// The job of a worker that is frozen goes elsewhere, and the worker is there
// again when it may go on.
func TestStop(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	w1.Stop()
	c.Worker("w2", cluster.NodeOptions{})
	c.AwaitStart("work.a0", 2)
	if !w1.Alive() || w1.Ready() {
		t.Errorf("the frozen worker: alive %v, ready %v", w1.Alive(), w1.Ready())
	}
	w1.Cont()
	c.Await("w1 is ready", w1.Ready)
	finish(t, c, "w1 lost", "w2 succeeded")
}

// A worker that is killed comes back under its ID in a new life.
func TestKill(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	w1.Kill()
	if w1.Alive() {
		t.Error("the worker is alive after it was killed")
	}
	w1.Start()
	if start := c.AwaitStart("work.a0", 2); start.Process != "w1#2" || start.Node != "w1" {
		t.Errorf("attempt 2 is by %s on node %s, want w1#2 on w1", start.Process, start.Node)
	}
	finish(t, c, "w1 lost", "w1 succeeded")
}

// A worker that is asked to end finishes what runs.
func TestTerm(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	w1.Term()
	w1.Await()
	if !strings.Contains(w1.Log(), "draining") {
		t.Errorf("the worker did not say that it drains:\n%s", w1.Log())
	}
	finish(t, c, "w1 succeeded")
}

// A server that is killed comes back with everything at the same address.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	c.Server(1).Kill()
	if _, err := c.Try("job", "list"); err == nil {
		t.Error("jobs are listed without a server")
	}
	c.Await("the worker misses the server", func() bool { return !w1.Ready() })
	c.Server(1).Start()
	c.Settle()
	c.Await("the worker is ready", w1.Ready)
	finish(t, c, "w1 succeeded")
}

// What a user asks for is done, and in the ledger.
func TestCalls(t *testing.T) {
	t.Parallel()
	c, _ := begin(t, 15*time.Second) // it is cancelled before
	for _, err := range []error{
		c.Cancel("work.a0"), c.Pause("work"), c.Resume("work"), c.Limit("work", 3),
		c.Drain("w1"), c.Undrain("w1"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	c.AwaitEnded(1)
	c.Read("work.a0")
	if err := c.Cancel("work.none"); err == nil {
		t.Error("a job that is not there was cancelled")
	}
	if err := c.Retry("work.a0"); err != nil {
		t.Error(err)
	}
	c.AwaitStart("work.a0", 2)
	c.AwaitEnded(1)
	var got []string
	for _, e := range c.Entries() {
		if e.What == ledger.Call || e.What == ledger.Read {
			got = append(got, strings.Join(strings.Fields(string(e.What)+" "+e.Verb+" "+e.Job+e.Queue+e.Node+" "+e.Outcome+e.State), " "))
		}
	}
	want := []string{
		"call submit work.a0 created",
		"call cancel work.a0 ok", "call pause work ok", "call resume work ok", "call limit work ok",
		"call drain w1 ok", "call undrain w1 ok",
		"read work.a0w1 cancelled",
		"call cancel work.none error", "call retry work.a0 ok",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	c.Judge()
}

// On three servers each stream has a leader, and another one when that is
// killed.
func TestLeader(t *testing.T) {
	t.Parallel()
	const jobs = "KV_mr_default_jobs"
	c := cluster.New(t, cluster.Options{Servers: 3})
	c.Serve("s1", cluster.NodeOptions{})
	c.Settle()
	first := c.Leader(jobs)
	first.Kill()
	c.Await("another server leads", func() bool {
		now := c.Leader(jobs)
		return now != nil && now != first
	})
	c.KillServers()
	if leader := c.Leader(jobs); leader != nil {
		t.Errorf("%s leads, and all are dead", leader.Name())
	}
	c.StartServers()
	c.Settle()
	if c.Leader(jobs) == nil {
		t.Error("nobody leads, although all is settled")
	}
}
