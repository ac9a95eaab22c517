package e2e_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
	"github.com/millrace/millrace/engine"
)

// Wall clocks are five minutes off, in either direction. Programs with such
// clocks are built from a standard library of their own, which takes minutes
// where the go command has never done it.
func TestClocks(t *testing.T) {
	tell(t,
		scenario{"of programs", short, short, func(t *testing.T, n int) { wrongClocks(t, cluster.Options{Servers: n}, off) }},
		scenario{"of a server", short, short, func(t *testing.T, n int) {
			wrongClocks(t, cluster.Options{Servers: n, Clocks: []time.Duration{-off}}, 0)
		}},
		scenario{"of owners", short, full, wrongTicks},
	)
}

// off is by how much clocks are wrong.
const off = 5 * time.Minute

// Owners, workers and submitters have wrong clocks, or servers have. What is
// delayed, what has failed once and what comes back later runs all the same, not
// before it is due, and nobody loses a lease.
func wrongClocks(t *testing.T, o cluster.Options, off time.Duration) {
	c := begin(t, o)
	c.Serve("ahead", cluster.NodeOptions{Clock: off})
	c.Serve("behind", cluster.NodeOptions{Clock: -off})
	c.Worker("w-ahead", cluster.NodeOptions{Clock: off})
	c.Worker("w-behind", cluster.NodeOptions{Clock: -off})
	work := actor.Work{For: 200, Fail: 1, Snooze: 2}
	count := scale(10, 20, 100)
	jobs := 0
	for prefix, clock := range map[string]time.Duration{"right": 0, "early": off, "late": -off} {
		c.Submit(cluster.Load{Prefix: prefix, Count: count, Rate: 10, Work: work, Clock: clock})
		c.Submit(cluster.Load{Prefix: prefix + "-delayed", Count: count, Rate: 10, Work: work, Clock: clock, Args: []string{"--delay", "8s"}})
		jobs += 2 * count
	}
	c.AwaitEnded(jobs)
	wantSucceeded(t, c)
	punctual(t, c)
	c.Judge()
}

// wrongTicks is owners with wrong clocks, which take over from each other. Schedules
// tick by the server's.
func wrongTicks(t *testing.T, servers int) {
	s := &shift{crew: &crew{Cluster: begin(t, cluster.Options{Servers: servers}), t: t, nodes: map[string]*cluster.Node{}}}
	for name, off := range map[string]time.Duration{"ahead": off, "behind": -off} {
		s.serving = append(s.serving, s.Serve(name, cluster.NodeOptions{Clock: off}))
		s.nodes["w-"+name] = s.Worker("w-"+name, cluster.NodeOptions{Clock: off})
	}
	by := actor.Timetable{Prefix: "cron", Count: 1, Definition: engine.Schedule{Cron: "*/2 * * * * *", Zone: "Europe/Berlin"}}
	s.tick(every("s", 2, time.Second, actor.Work{}), by)
	for range scale(0, 3, 10) {
		s.After(scale(0, 4*time.Second, 20*time.Second))
		n := s.awaitOwner()
		n.Term()
		n.Await()
		n.Start()
		s.Await(n.ID+" is ready", n.Ready)
	}
	s.allRan(s.rest())
}

// punctual checks that nothing started before it was due.
func punctual(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	due := map[string]int64{}
	delayed := 0
	for _, e := range c.Entries() {
		switch {
		case e.What == ledger.Call && e.Verb == ledger.Submit && e.Due > 0:
			due[e.Job] = e.Due
		case e.What == ledger.Start && e.Attempt == 1 && due[e.Job] > 0:
			delayed++
			if early := time.Duration(due[e.Job] - e.At); early > oracle.Drift {
				t.Errorf("job %s started on %s %v before it was due", e.Job, e.Node, early)
			}
		}
	}
	if delayed == 0 {
		t.Error("no job was delayed")
	}
}
