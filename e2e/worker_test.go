package e2e_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

var killJobs = flag.Int("jobs", 1000, "how many jobs TestKilledWorkers submits")

// Four workers run many jobs, and every 200 ms a random one is killed, and
// replaced. Every job ends well.
func TestKilledWorkers(t *testing.T) {
	t.Parallel()
	c := begin(t, cluster.Options{})
	c.Serve("s1", cluster.NodeOptions{})
	made := 0
	worker := func() *cluster.Node {
		made++
		return c.Worker(fmt.Sprintf("w%d", made), cluster.NodeOptions{Slots: 25, MaxAttempts: 1000, Early: true})
	}
	alive := []*cluster.Node{worker(), worker(), worker(), worker()}
	c.Submit(cluster.Load{Prefix: "live", Count: *killJobs, Work: actor.Work{For: 20}})
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for c.Ended(*killJobs) < *killJobs {
		select {
		case <-every.C:
		case <-t.Context().Done():
			t.Fatalf("the test has ended before its jobs: %d of %d have", c.Ended(*killJobs), *killJobs)
		}
		i := rand.IntN(len(alive))
		alive[i].Kill()
		alive[i] = worker()
	}
	t.Logf("%d jobs, %d workers killed", *killJobs, made-len(alive))
	if jobs := wantSucceeded(t, c); len(jobs) != *killJobs {
		t.Errorf("%d jobs are there, want %d", len(jobs), *killJobs)
	}
	c.Judge()
}

// command starts a worker whose handler is a command, and a job on it that takes
// so many milliseconds.
func command(t *testing.T, ms int) (*cluster.Cluster, *cluster.Node) {
	t.Helper()
	c := begin(t, cluster.Options{})
	c.Serve("s1", cluster.NodeOptions{})
	w1 := c.Exec("w1", cluster.NodeOptions{Queues: []string{"report"}})
	c.Submit(cluster.Load{Queue: "report", Prefix: "r", Count: 1, Work: actor.Work{For: ms}}).Await()
	c.AwaitStart("report.r0", 1)
	return c, w1
}

// A worker is killed in the middle of a job. Its command ends with it, and
// another worker runs the job again.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	c, w1 := command(t, 2000)
	w1.Kill()
	c.Exec("w2", cluster.NodeOptions{Queues: []string{"report"}})
	c.AwaitEnded(1)
	c.WantAttempts("w1 lost", "w2 succeeded")
	for _, e := range c.Entries() {
		if e.What == ledger.End && e.Attempt == 1 {
			t.Errorf("the command of the dead worker went on: %+v", e)
		}
	}
	c.Judge()
}

// A worker is frozen for longer than its lease, while its command goes on and
// has a result. When it wakes up, the job is another's, and what it has to say is
// refused (I3).
func TestWorkerFrozen(t *testing.T) {
	t.Parallel()
	c, w1 := command(t, 5000)
	w1.Stop()
	c.Exec("w2", cluster.NodeOptions{Queues: []string{"report"}})
	c.AwaitEntry("the frozen worker's command has ended", func(e ledger.Entry) bool {
		return e.What == ledger.End && e.Attempt == 1
	})
	second := c.AwaitStart("report.r0", 2)
	w1.Cont()
	c.Await("the first outcome is refused", func() bool {
		return strings.Contains(w1.Log(), `msg="outcome is stale"`)
	})
	c.AwaitEnded(1)
	job := c.WantAttempts("w1 lost", "w2 succeeded")
	if !strings.Contains(string(job.Result), second.Nonce) {
		t.Errorf("the result is %s, want that of attempt 2, %s", job.Result, second.Nonce)
	}
	c.Judge()
}
