package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
	k := &troop{crew: newCrew(t, servers, cluster.NodeOptions{})}
	k.gone, k.ownersDie = map[string]bool{}, slices.Contains(how, "owner")
	for range 5 {
		k.team = append(k.team, k.hire())
	}
	lasts := scale(0, 30*time.Second, 2*time.Minute)
	submitters := k.flood(lasts, scale(0, 3.0, 20))
	heal := func() {}
	for began := time.Now(); time.Since(began) < lasts; k.After(time.Duration(500+rand.IntN(3000)) * time.Millisecond) {
		heal()
		heal = k.harm(how[rand.IntN(len(how))])
	}
	heal()
	for _, s := range submitters {
		s.Await()
	}
	k.finish()
	k.tellEnds()
}

// troop is a crew whose workers come and go.
type troop struct {
	*crew
	team      []*cluster.Node
	made      int
	ownersDie bool
}

// hire starts a worker with a new ID.
func (k *troop) hire() *cluster.Node {
	k.t.Helper()
	k.made++
	return k.Worker(fmt.Sprintf("w%d", k.made), cluster.NodeOptions{MaxAttempts: 1000, Early: k.made > 5})
}

// harm does something to one of the team, to the owner or to a server, and returns
// what heals it.
func (k *troop) harm(what string) (heal func()) {
	k.t.Helper()
	i := rand.IntN(len(k.team))
	n := k.team[i]
	moment := func() { k.After(time.Duration(rand.Int64N(int64(k.Lease + 2*time.Second)))) }
	switch what {
	case "kill":
		n.Kill()
		return n.Start
	case "term":
		n.Term()
		return func() { n.Await(); n.Start() }
	case "stop":
		n.Stop()
		moment()
		return n.Cont
	case "cut":
		n.Cut()
		moment()
		return n.HealLinks
	case "replace", "retire":
		if what == "replace" {
			n.Kill()
		} else {
			n.Term()
		}
		if what == "replace" || k.ownersDie {
			k.gone[n.ID] = true
		}
		k.team[i] = k.hire()
	case "owner":
		k.killOwner()
	case "server":
		s := k.Servers()[rand.IntN(len(k.Servers()))]
		s.Kill()
		s.Start()
		k.Settle()
	}
	return func() {}
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

// tellEnds prints how they ended, and checks that of each kind some succeeded that does
// not need every node, and all sharded ones.
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
	for _, kind := range []string{"flaky", "wait", "any", "roll", "shards", "pieces"} {
		if ends[kind+" succeeded"] == 0 {
			c.t.Errorf("no job %s… has succeeded: %v", kind, ends)
		}
	}
}
