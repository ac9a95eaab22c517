package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// Broadcasts and sharded jobs of all kinds, all the time, while nodes come and go.
// The oracle knows what may become of each part.
func TestChurn(t *testing.T) {
	tell(
		t,
		scenario{"clean stops", short, full, churn{"term"}.tell},
		scenario{"crashes", short, full, churn{"kill"}.tell},
		scenario{"other IDs", short, full, churn{"replace", "retire"}.tell},
		scenario{"everything", short, short, churn{"kill", "term", "stop", "cut", "replace", "owner", "server"}.tell},
	)
}

// churn is what is done to a random node, again and again.
type churn []string

func (how churn) tell(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{MaxAttempts: 1000})
	var team []*cluster.Node
	made := 0
	hire := func() *cluster.Node {
		made++
		return c.Worker(fmt.Sprintf("w%d", made), cluster.NodeOptions{MaxAttempts: 1000, Early: made > 5})
	}
	for range 5 {
		team = append(team, hire())
	}
	lasts := scale(0, 30*time.Second, 2*time.Minute)
	submitters := c.flood(lasts, scale(0, 3.0, 20))
	heal := func() {}
	for began := time.Now(); time.Since(began) < lasts; c.After(time.Duration(500+rand.IntN(3000)) * time.Millisecond) {
		heal()
		heal = func() {}
		i := rand.IntN(len(team))
		n := team[i]
		switch how[rand.IntN(len(how))] {
		case "kill":
			n.Kill()
			heal = n.Start
		case "term":
			n.Term()
			heal = func() { n.Await(); n.Start() }
		case "stop":
			n.Stop()
			c.After(time.Duration(rand.Int64N(int64(c.Lease + 2*time.Second))))
			heal = n.Cont
		case "cut":
			n.Cut()
			c.After(time.Duration(rand.Int64N(int64(c.Lease + 2*time.Second))))
			heal = n.HealLinks
		case "replace":
			n.Kill()
			team[i] = hire()
		case "retire":
			n.Term()
			team[i] = hire()
		case "owner":
			c.killOwner()
		case "server":
			s := c.Servers()[rand.IntN(servers)]
			s.Kill()
			s.Start()
			c.Settle()
		}
	}
	heal()
	for _, s := range submitters {
		s.Await()
	}
	c.finish()
	c.tellEnds()
}

// flood has broadcasts and sharded jobs submitted, so many a second of each of
// them.
func (c *crew) flood(lasts time.Duration, rate float64) (submitters []*cluster.Node) {
	c.t.Helper()
	count := int(lasts.Seconds() * rate / 4)
	deadline := 3*c.Lease + 10*time.Second
	work := actor.Work{For: 100}
	for _, load := range []cluster.Load{
		{Prefix: "fail", Work: work, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "all"}},
		{Prefix: "slow", Work: actor.Work{For: 1500}, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "quorum"}},
		{Prefix: "flaky", Work: actor.Work{For: 50, Fail: 1}, Broadcast: &actor.Broadcast{OnLost: "wait", Done: "all"}, Deadline: deadline},
		{Prefix: "wait", Work: actor.Work{For: 700}, Broadcast: &actor.Broadcast{OnLost: "wait", Done: "all"}, Deadline: deadline},
		{Prefix: "any", Work: work, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "any"}},
		{Prefix: "roll", Work: work, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "3", MaxParallel: 2}},
		{Prefix: "shards", Work: actor.Work{For: 300}, Shards: 6},
		{Prefix: "pieces", Work: actor.Work{For: 1500}, Shards: 3},
	} {
		load.Count, load.Rate, load.MaxAttempts = count, rate/4, 1000
		c.jobs += count
		submitters = append(submitters, c.Submit(load))
	}
	return submitters
}

// tellEnds prints how they ended, and checks that of each kind some succeeded, and
// all sharded ones.
func (c *crew) tellEnds() {
	c.t.Helper()
	ends := map[string]int{}
	for _, j := range c.Jobs() {
		if j.Parent != "" {
			ends["part "+j.State]++
			continue
		}
		kind := strings.TrimRight(strings.TrimPrefix(j.ID, "work."), "0123456789")
		ends[kind+" "+j.State]++
		if j.Children != nil && j.Children.Shards && j.State != "succeeded" {
			c.t.Errorf("%s is %s: %+v", j.ID, j.State, j.Error)
		}
	}
	c.t.Logf("%v", ends)
	for _, kind := range []string{"fail", "slow", "flaky", "wait", "any", "roll", "shards", "pieces"} {
		if ends[kind+" succeeded"] == 0 {
			c.t.Errorf("no job %s… has succeeded: %v", kind, ends)
		}
	}
}
