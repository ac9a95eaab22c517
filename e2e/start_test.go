package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// Processes are started in whatever order. Those that wait for NATS are alive and
// not ready, and begin as soon as it is there.
func TestStart(t *testing.T) {
	tell(t,
		scenario{"before the servers", quick, short, beforeServers},
		scenario{"before there is a leader", never, short, beforeLeader},
	)
}

// unawaited starts one process of each kind, and does not wait for them.
func unawaited(c *cluster.Cluster) []*cluster.Node {
	o := cluster.NodeOptions{Early: true}
	return []*cluster.Node{c.Serve("s1", o), c.Worker("w1", o), c.Exec("x1", cluster.NodeOptions{Early: true, Queues: []string{shell}})}
}

// begun waits until they work, and judges.
func begun(c *cluster.Cluster, nodes []*cluster.Node) {
	for _, n := range nodes {
		c.Await(n.Name()+" is ready", n.Ready)
	}
	for _, queue := range []string{"work", shell} {
		c.Submit(cluster.Load{Queue: queue, Prefix: "a", Count: 10, Work: actor.Work{For: 50}})
	}
	c.AwaitEnded(20)
	c.Judge()
}

// The servers are not there yet.
func beforeServers(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.KillServers()
	nodes := unawaited(c)
	for _, n := range nodes {
		c.Await(n.Name()+" says that it waits", func() bool { return strings.Contains(n.Log(), "level=WARN") || strings.Contains(n.Log(), " WARN ") })
	}
	c.After(3 * time.Second)
	for _, n := range nodes {
		if n != nodes[1] { // the program of a user has other ways
			c.Await(n.Name()+" is alive", n.Healthy)
		}
		if n.Ready() {
			t.Errorf("%s says that it is ready without a server", n.Name())
		}
	}
	c.StartServers()
	c.Settle()
	begun(c, nodes)
}

// One server of three is there, which has nobody to elect a leader with.
func beforeLeader(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.KillServers()
	c.Server(1).Start()
	nodes := unawaited(c)
	c.After(scale(5*time.Second, 25*time.Second, time.Minute))
	for _, n := range nodes {
		if !n.Alive() || n.Ready() {
			t.Errorf("%s is not waiting:\n%s", n.Name(), n.Log())
		}
	}
	c.StartServers()
	c.Settle()
	begun(c, nodes)
}
