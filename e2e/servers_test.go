package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// Servers die: one, each in turn, those that lead, and all at once.
func TestServers(t *testing.T) {
	tell(t,
		scenario{"killed again and again", quick, never, killedAgain},
		scenario{"leaders", never, short, leadersGo},
		scenario{"each in turn", never, short, eachInTurn},
		scenario{"all killed", short, short, func(t *testing.T, n int) { allKilled(t, cluster.Options{Servers: n}) }},
		scenario{"all killed with sync always", full, short, func(t *testing.T, n int) { allKilled(t, cluster.Options{Servers: n, Sync: "always"}) }},
		scenario{"store wiped", never, short, storeWiped},
		scenario{"minority", never, short, minority},
		scenario{"deserted", never, short, deserted},
	)
}

// The only server is killed and started again, again and again, while jobs are
// submitted and run.
func killedAgain(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	b := staff(t, c)
	b.add(scale(5*time.Second, 20*time.Second, 2*time.Minute))
	for range scale(2, 6, 40) {
		c.After(1500 * time.Millisecond)
		c.Server(1).Kill()
		c.Server(1).Start()
		b.probe("after a restart")
	}
	b.finish()
}

// streams are those whose leaders go, in turn: of the jobs, their items, the
// nodes, the leases and the timers.
func streams() []string {
	all := []string{"KV_mr_default_jobs", "mr_default_work", "KV_mr_default_leases", "mr_default_timers", "KV_mr_default_nodes"}
	return all[:scale(1, 4, 5)]
}

// The leader of each stream is killed and, another time, frozen.
func leadersGo(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	b := staff(t, c)
	for n, stream := range streams() {
		var leader *cluster.Server
		find := func() {
			c.Await(stream+" has a leader", func() bool {
				leader = c.Leader(stream)
				return leader != nil
			})
		}
		killed := fault{"SIGKILL of the leader of " + stream, func() { find(); leader.Kill() }, func() { leader.Start() }}
		frozen := fault{"SIGSTOP of the leader of " + stream, func() { find(); leader.Stop() }, func() { leader.Cont() }}
		if *told == full || n%2 == 0 {
			b.bear(killed)
		}
		if *told == full || n%2 == 1 {
			b.bear(frozen)
		}
	}
	b.finish()
}

// Each of the servers is killed, and comes back before the next one is.
func eachInTurn(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	b := staff(t, c)
	for range scale(1, 1, 4) {
		for _, s := range c.Servers() {
			b.bear(fault{"SIGKILL of a server", s.Kill, s.Start})
		}
	}
	b.finish()
}

// All servers are killed at once. They come back at once, and another time when
// every lease has run out.
func allKilled(t *testing.T, o cluster.Options) {
	c := begin(t, o)
	b := staff(t, c)
	for range scale(1, 1, 5) {
		b.bear(fault{"SIGKILL of all servers, back at once", func() {
			c.KillServers()
			c.StartServers()
		}, nil})
		b.bear(fault{"SIGKILL of all servers, back after the leases", func() {
			c.KillServers()
			c.After(c.Lease + 3*time.Second)
			c.StartServers()
		}, nil})
	}
	b.finish()
}

// A server loses its store and comes back with an empty one. When it has caught
// up, each of the others goes in turn: what it has now is as good as theirs.
func storeWiped(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	b := staff(t, c)
	wiped := c.Server(2)
	b.bear(fault{"SIGKILL of n2, back without its store", wiped.Kill, func() {
		if err := os.RemoveAll(filepath.Join(c.Dir, "n2")); err != nil {
			t.Fatal(err)
		}
		wiped.Start()
	}})
	for _, other := range []*cluster.Server{c.Server(1), c.Server(3)} {
		b.bear(fault{"SIGKILL of one that had kept its store", other.Kill, other.Start})
	}
	b.finish()
}

// A server loses its routes to both others, with the owner and a worker on it that
// reach no other one. They stay connected to it, and nothing that they ask for is
// done. The others go on without them.
func minority(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	alone, most := c.Server(1), []*cluster.Server{c.Server(2), c.Server(3)}
	s1 := move(c, c.Serve("s1", cluster.NodeOptions{}), most...)
	move(c, c.Serve("s2", cluster.NodeOptions{}), alone)
	w1 := move(c, c.Worker("w1", cluster.NodeOptions{Slots: 20}), most...)
	move(c, c.Worker("w2", cluster.NodeOptions{Slots: 20}), alone)
	b := &burden{t: t, c: c}
	b.bear(fault{"n1 cut off from both others, with s1 and w1", func() {
		c.Submit(cluster.Load{Prefix: "through-", Count: 20, Work: actor.Work{For: int(2 * c.Lease / time.Millisecond)}, MaxAttempts: 1000}).Await()
		c.After(time.Second)
		s1.Cut(most...)
		w1.Cut(most...)
		alone.Cut(most...)
		c.AwaitEntry("s2 is the owner", func(e ledger.Entry) bool { return e.What == ledger.Owner && e.Node == "s2" })
		c.AwaitEntry("w1 has lost its lease", func(e ledger.Entry) bool {
			return e.What == ledger.End && e.Node == "w1" && e.Outcome == ledger.Obeyed
		})
	}, func() {
		alone.HealLinks()
		s1.HealLinks()
		w1.HealLinks()
	}})
	b.finish()
}

// A server loses its routes to both others, with all that there is of the engine on
// it. Nothing is done there, so they go to another server, and work goes on.
func deserted(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	alone, most := c.Server(1), []*cluster.Server{c.Server(2), c.Server(3)}
	move(c, c.Serve("s1", cluster.NodeOptions{}), most...)
	move(c, c.Worker("w1", cluster.NodeOptions{Slots: 20}), most...)
	b := &burden{t: t, c: c}
	b.bear(fault{"n1 deserted by s1 and w1", func() { alone.Cut(most...) }, alone.HealLinks})
	b.finish()
}

// move has a node connect to another server than these. It stays there as long as
// that is of use.
func move(c *cluster.Cluster, n *cluster.Node, away ...*cluster.Server) *cluster.Node {
	n.Term()
	n.Await()
	n.Cut(away...)
	n.Start()
	c.Await(n.Name()+" is ready", n.Ready)
	n.HealLinks()
	return n
}
