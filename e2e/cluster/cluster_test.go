package cluster_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// Jobs run on one server and on three, by handlers in Go and by scripts.
func TestJobs(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			t.Parallel()
			c := cluster.New(t, cluster.Options{Servers: servers})
			c.Serve("s1", cluster.NodeOptions{})
			c.Worker("w1", cluster.NodeOptions{})
			c.Exec("x1", cluster.NodeOptions{Queues: []string{"script"}})
			c.Submit(cluster.Load{Prefix: "a", Count: 20, Work: actor.Work{For: 20}}).Await()
			c.Submit(cluster.Load{Queue: "script", Prefix: "b", Count: 3, Work: actor.Work{For: 20}}).Await()
			c.AwaitEnded(23)
			if jobs := c.Jobs(); len(jobs) != 23 {
				t.Errorf("%d jobs are there, 23 were submitted", len(jobs))
			}
			c.Judge()
		})
	}
}
