package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// Nodes die while they have shards. Others take these, each shard is completed
// once, and nobody cleans up.
func TestShards(t *testing.T) {
	tell(
		t,
		scenario{"each node dies with the other's shard", short, short, deadInTurn},
		scenario{"both nodes die", short, full, deadAtOnce},
		scenario{"node dies before and another during", quick, short, deadBeforeAndDuring},
		scenario{"nodes come and go", short, short, shardChaos},
	)
}

// ticks are sharded jobs that follow each other.
type ticks struct {
	*crew
	shards int
	n      int
}

// tick submits the next one.
func (k *ticks) tick(w actor.Work) (job string) {
	k.t.Helper()
	k.n++
	return k.dispatch(cluster.Broadcast{ID: fmt.Sprint("tick", k.n), Shards: k.shards, Work: w, MaxAttempts: 1000})
}

// checkTick checks that a tick has succeeded, with each shard; and, if nothing was
// done to anybody, that each has started once.
func (k *ticks) checkTick(job string, inPeace bool) {
	k.t.Helper()
	r, err := k.Report(job)
	if err != nil {
		k.t.Error(err)
		return
	}
	starts := map[string]int{}
	for _, e := range k.startsOf(job) {
		starts[e.Part]++
	}
	if r.State != "succeeded" || r.Children.Total != k.shards || r.Children.Succeeded != k.shards || len(r.Parts) != k.shards || len(starts) != k.shards {
		k.t.Errorf("%s is %s, %+v, and its shards were started %v times: want all %d", job, r, r.Children, starts, k.shards)
	}
	for shard, n := range starts {
		if inPeace && n != 1 {
			k.t.Errorf("shard %s of %s was started %d times", shard, job, n)
		}
	}
}

// node is where a shard was started last.
func (k *ticks) node(job, shard string) string {
	k.t.Helper()
	starts := slices.DeleteFunc(k.startsOf(job), func(e ledger.Entry) bool { return e.Part != shard })
	if len(starts) == 0 {
		k.t.Fatalf("shard %s of %s was never started", shard, job)
	}
	return starts[len(starts)-1].Node
}

// deadInTurn is the story of a shard that was lost for ever: its node dies, then
// the one that took it, when the first is back.
func deadInTurn(t *testing.T, servers int) {
	k := &ticks{crew: newCrew(t, servers, cluster.NodeOptions{}, "wA", "wB"), shards: 2}
	work := actor.Work{For: ms(scale(0, 5*k.Lease/2, time.Minute))}
	first := k.tick(work)
	k.AwaitPart(first, "0", 1)
	k.AwaitPart(first, "1", 1)
	a, b := k.nodes[k.node(first, "0")], k.nodes[k.node(first, "1")]
	if a == b {
		t.Fatalf("both shards are on %s, want one on each node", a.ID)
	}
	k.After(scale(0, time.Second, 10*time.Second))
	killed := k.Ledger.Now()
	b.Kill()
	second := k.AwaitPart(first, "1", 2)
	k.figure("killed until the other node starts the shard", killed, second.At)
	if second.Node != a.ID {
		t.Errorf("shard 1 is on %s, want %s", second.Node, a.ID)
	}
	k.After(scale(0, 0, 4*time.Second))
	b.Start()
	k.Await(b.ID+" is ready", b.Ready)
	killed = k.Ledger.Now()
	a.Kill()
	third := k.AwaitPart(first, "1", 3)
	k.figure("killed until the first node starts the shard again", killed, third.At)
	if bound := 2*k.Lease + 10*time.Second; third.Node != b.ID || third.At-killed > int64(bound) {
		t.Errorf("shard 1 went to %s after %v, want it on %s within %v", third.Node, time.Duration(third.At-killed), b.ID, bound)
	}
	k.After(scale(0, 0, 30*time.Second))
	a.Start()
	k.over(first)
	k.checkTick(first, false)
	k.Await(a.ID+" is ready", a.Ready)
	for range 3 {
		job := k.tick(scale(work, actor.Work{For: 500}, work))
		k.over(job)
		k.checkTick(job, true)
	}
	k.finish()
}

// deadAtOnce kills both nodes, and starts them again in either order.
func deadAtOnce(t *testing.T, servers int) {
	k := &ticks{crew: newCrew(t, servers, cluster.NodeOptions{}, "wA", "wB"), shards: 2}
	for _, order := range [][]string{{"wA", "wB"}, {"wB", "wA"}} {
		job := k.tick(actor.Work{For: ms(scale(0, 3*time.Second, time.Minute))})
		k.AwaitPart(job, "0", 1)
		k.AwaitPart(job, "1", 1)
		for _, n := range k.nodes {
			n.Kill()
		}
		for _, name := range order {
			k.nodes[name].Start()
			k.After(scale(0, 2*time.Second, 20*time.Second))
		}
		k.over(job)
		k.checkTick(job, false)
		for _, n := range k.nodes {
			k.Await(n.ID+" is ready", n.Ready)
		}
		next := k.tick(actor.Work{For: 100})
		k.over(next)
		k.checkTick(next, true)
	}
	k.finish()
}

// deadBeforeAndDuring kills a node just before six shards are placed, and another
// one while it runs some.
func deadBeforeAndDuring(t *testing.T, servers int) {
	k := &ticks{crew: newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3"), shards: 6}
	k.nodes["w2"].Kill()
	killed := k.Ledger.Now()
	job := k.tick(actor.Work{For: ms(scale(time.Second, 4*time.Second, 20*time.Second))})
	k.AwaitEntry("w3 has a shard", func(e ledger.Entry) bool {
		return e.What == ledger.Start && e.Parent == job && e.Node == "w3"
	})
	if *told > quick {
		k.nodes["w3"].Kill()
		k.nodes["w3"].Start()
	}
	k.nodes["w2"].Start()
	k.over(job)
	k.figure("killed before the dispatch until all six shards are done", killed, k.Ledger.Now())
	k.checkTick(job, false)
	k.finish()
}

// shardChaos submits ticks of six shards to three workers, of which in each round
// one dies, ends, or freezes. Then five ticks find them in peace.
func shardChaos(t *testing.T, servers int) {
	k := &ticks{crew: newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3"), shards: 6}
	names := []string{"w1", "w2", "w3"}
	takes, every := scale(0, time.Second, 5*time.Second), scale(0, 5*time.Second, 30*time.Second)
	var rough []string
	for range scale(0, 6, 20) {
		rough = append(rough, k.tick(actor.Work{For: ms(takes)}))
		began := time.Now()
		k.After(time.Duration(rand.Int64N(int64(takes) + int64(time.Second))))
		n := k.nodes[names[rand.IntN(len(names))]]
		switch rand.IntN(3) {
		case 0:
			n.Kill()
			n.Start()
		case 1:
			n.Term()
			n.Await()
			n.Start()
		case 2:
			n.Stop()
			k.After(scale(0, k.Lease+2*time.Second, 15*time.Second))
			n.Cont()
		}
		k.After(every - time.Since(began))
	}
	for _, job := range rough {
		k.over(job)
		k.checkTick(job, false)
	}
	for _, n := range k.nodes {
		k.Await(n.ID+" is ready", n.Ready)
	}
	for range 5 {
		job := k.tick(actor.Work{For: ms(takes)})
		k.over(job)
		k.checkTick(job, true)
	}
	k.finish()
}
