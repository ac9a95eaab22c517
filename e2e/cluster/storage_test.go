package cluster_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// While the storage is full no job is stored, and afterwards all are.
func TestFill(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			t.Parallel()
			c := cluster.New(t, cluster.Options{Servers: servers, MaxStore: 32 << 20})
			c.Serve("s1", cluster.NodeOptions{})
			c.Worker("w1", cluster.NodeOptions{})
			c.Fill()
			if out, err := c.Try("job", "submit", "work.do", "--id", "full"); err == nil {
				t.Errorf("a job was stored although the storage is full: %s", out)
			}
			load := c.Submit(cluster.Load{Prefix: "a", Count: 10, Work: actor.Work{For: 20}})
			if !load.Alive() {
				t.Error("jobs were submitted although the storage is full")
			}
			c.Free()
			load.Await()
			c.AwaitEnded(10)
			wantFaults(t, c, "fault full  ", "heal full  ")
			c.Judge()
		})
	}
}
