package e2e_test

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// Nodes die, freeze, drain and come back while they have parts of broadcasts. Each
// part runs on its own node, or is lost, or waits, and nobody else has it.
func TestBroadcast(t *testing.T) {
	tell(
		t,
		scenario{"node dies in it", quick, short, death{}.tell},
		scenario{"node dies in it and is back at once", short, full, death{atOnce: true}.tell},
		scenario{"node dies in it with the owner", short, short, death{owner: true}.tell},
		scenario{"script dies in it", short, full, death{scripts: true}.tell},
		scenario{"node dies before it has heard", short, short, func(t *testing.T, n int) { deaf(t, n, false) }},
		scenario{"node wakes up too late", short, full, func(t *testing.T, n int) { deaf(t, n, true) }},
		scenario{"node dies with the work done", short, short, unrecorded},
		scenario{"node dies with the work recorded", short, full, unacknowledged},
		scenario{"submitter dies in the middle", short, short, halfDispatched},
		scenario{"servers die before anybody has heard", short, short, unheard},
		scenario{"servers are away for longer than the lease", short, short, outlasted},
		scenario{"drain and stop", short, full, drainedInIt},
		scenario{"rolling push", short, short, rolling},
		scenario{"labels", short, full, labelled},
	)
}

// crew is a few workers, and what they all are to do.
type crew struct {
	*cluster.Cluster
	t       *testing.T
	serving []*cluster.Node
	nodes   map[string]*cluster.Node
	jobs    int
	gone    map[string]bool // nodes that do not come back, whose mailboxes may keep what was to be deleted when a process died
}

// newCrew starts two nodes that serve, of which one can go, and workers.
func newCrew(t *testing.T, servers int, o cluster.NodeOptions, names ...string) *crew {
	t.Helper()
	c := &crew{Cluster: begin(t, cluster.Options{Servers: servers}), t: t, nodes: map[string]*cluster.Node{}}
	for _, name := range []string{"s1", "s2"} {
		c.serving = append(c.serving, c.Serve(name, cluster.NodeOptions{}))
	}
	for _, name := range names {
		c.nodes[name] = c.Worker(name, o)
	}
	return c
}

// dispatch starts a broadcast.
func (c *crew) dispatch(b cluster.Broadcast) (job string) {
	c.t.Helper()
	c.jobs++
	return c.MustDispatch(b)
}

// patienceOfJobs is for how long a part waits for its node at most.
const patienceOfJobs = 10 * time.Minute

// both starts two broadcasts, of which one fails without a node and one waits for it.
func (c *crew) both(w actor.Work) (fails, waits string) {
	c.t.Helper()
	fails = c.dispatch(cluster.Broadcast{ID: "fails", Work: w})
	waits = c.dispatch(cluster.Broadcast{ID: "waits", Work: w, OnLost: "wait", Deadline: patienceOfJobs})
	return fails, waits
}

// over waits until a broadcast has ended.
func (c *crew) over(job string) {
	c.t.Helper()
	c.AwaitReport(job, "it has ended", func(r cluster.Report) bool { return r.Ended() })
}

// want checks what has become of a broadcast: the state, and each part with its
// state and the number of its attempts.
func (c *crew) want(job, report string) {
	c.t.Helper()
	r, err := c.Report(job)
	if err != nil {
		c.t.Error(err)
	} else if got := r.String(); got != report {
		c.t.Errorf("%s is %s, want %s", job, got, report)
	}
}

// attempts is how often a part was claimed, in a report.
var attempts = regexp.MustCompile(`:\d+\b`)

// wantEnds is want, however often the parts were claimed: a node that is not sure yet that
// the queue is not paused hands back what it has not begun.
func (c *crew) wantEnds(job, report string) {
	c.t.Helper()
	r, err := c.Report(job)
	if err != nil {
		c.t.Error(err)
	} else if got := attempts.ReplaceAllString(r.String(), ""); got != report {
		c.t.Errorf("%s is %s, want %s", job, got, report)
	}
}

// await waits until a broadcast is as want would have it.
func (c *crew) await(job, report string) {
	c.t.Helper()
	c.AwaitReport(job, "it is "+report, func(r cluster.Report) bool { return r.String() == report })
}

// finish waits until all has ended and nothing is left of it, and has it judged.
func (c *crew) finish() {
	c.t.Helper()
	c.AwaitEnded(c.jobs)
	c.AwaitNoMail(c.gone)
	c.Judge()
}

// figure prints how long something took, for docs/reliability.md.
func (c *crew) figure(what string, from, to int64) {
	c.t.Helper()
	c.t.Logf("figure: %s: %v", what, time.Duration(to-from).Round(10*time.Millisecond))
}

// death is how a node goes that runs its parts of three broadcasts. Of these one
// fails, one has enough in the others, and one waits.
type death struct {
	owner   bool // goes with it
	atOnce  bool // it comes back at once, and not when its part is lost
	scripts bool // are the handlers
}

func (d death) tell(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{})
	for _, name := range []string{"w1", "w2", "w3"} {
		if d.scripts {
			c.nodes[name] = c.Exec(name, cluster.NodeOptions{})
		} else {
			c.nodes[name] = c.Worker(name, cluster.NodeOptions{})
		}
	}
	work := actor.Work{For: ms(scale(8*time.Second, 8*time.Second, time.Minute))}
	fails, waits := c.both(work)
	quorum := c.dispatch(cluster.Broadcast{ID: "quorum", Work: work, Done: "quorum"})
	for _, job := range []string{fails, waits, quorum} {
		for node := range c.nodes {
			c.AwaitPart(job, node, 1)
		}
	}
	c.After(scale(0, time.Second, 5*time.Second))
	gone, killed := c.nodes["w3"], c.Ledger.Now()
	gone.Kill()
	if d.owner {
		c.killOwner()
	}
	late := c.Worker("w4", cluster.NodeOptions{Early: true}) // which has a part of none
	if d.atOnce {
		gone.Start()
	}
	c.over(fails)
	c.figure("killed until the broadcast has failed", killed, c.Ledger.Now())
	c.over(quorum)
	c.Await("w4 is ready", late.Ready)
	if !d.atOnce {
		c.await(waits, "waiting w1:succeeded:1 w2:succeeded:1 w3:pending:1")
		gone.Start()
	}
	again := c.AwaitPart(waits, "w3", 2)
	c.figure("killed until the part that waits starts again", killed, again.At)
	c.over(waits)
	c.want(fails, "failed w1:succeeded:1 w2:succeeded:1 w3:lost:1")
	c.want(quorum, "succeeded w1:succeeded:1 w2:succeeded:1 w3:lost:1")
	c.want(waits, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:2")
	c.finish()
}

// killOwner kills the node that is the owner, and starts it again.
func (c *crew) killOwner() {
	c.t.Helper()
	n := c.owner()
	n.Kill()
	n.Start()
}

// deaf is a node that is frozen when it gets its parts, and dies or wakes up.
func deaf(t *testing.T, servers int, wakes bool) {
	c := newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3")
	gone := c.nodes["w3"]
	gone.Stop()
	frozen := c.Ledger.Now()
	fails, waits := c.both(actor.Work{For: 100})
	if !wakes {
		gone.Kill()
	}
	c.over(fails)
	c.figure("frozen or killed until its part, which nobody had claimed, is lost", frozen, c.Ledger.Now())
	if wakes {
		gone.Cont()
	} else {
		gone.Start()
	}
	c.over(waits)
	c.want(fails, "failed w1:succeeded:1 w2:succeeded:1 w3:lost:0")
	c.want(waits, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	c.finish()
}

// unrecorded is a node whose handlers have finished, and which dies before
// anybody knows.
func unrecorded(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3")
	gone := c.nodes["w3"]
	fails, waits := c.both(actor.Work{For: 1500})
	for _, job := range []string{fails, waits} {
		c.AwaitPart(job, "w3", 1)
	}
	gone.Cut()
	for _, job := range []string{fails, waits} {
		c.AwaitEntry("w3 is done with its part of "+job, func(e ledger.Entry) bool {
			return e.What == ledger.End && e.Parent == job && e.Node == "w3"
		})
	}
	gone.Kill()
	gone.HealLinks()
	c.over(fails)
	gone.Start()
	c.over(waits)
	c.want(fails, "failed w1:succeeded:1 w2:succeeded:1 w3:lost:1")
	c.want(waits, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:2")
	c.finish()
}

// unacknowledged is a node that dies when its outcome is recorded, before it knows
// that, and before it could take the part out of its mailbox.
func unacknowledged(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3")
	gone := c.nodes["w3"]
	gone.Delay(time.Second)
	fails, waits := c.both(actor.Work{For: 100})
	for _, job := range []string{fails, waits} {
		c.AwaitReport(job, "w3's part is recorded", func(r cluster.Report) bool {
			return slices.ContainsFunc(r.Parts, func(p cluster.Part) bool { return p.Node == "w3" && p.State == "succeeded" })
		})
	}
	gone.Kill()
	gone.HealLinks()
	gone.Start()
	c.over(fails)
	c.over(waits)
	for _, job := range []string{fails, waits} {
		c.want(job, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	}
	c.Await("w3 is ready", gone.Ready)
	c.finish()
}

// halfDispatched is a submitter that dies as soon as anybody sees its second
// broadcast, before it knows of that itself; another time with the owner.
func halfDispatched(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3")
	for _, owner := range []bool{false, true} {
		prefix := map[bool]string{false: "a", true: "b"}[owner]
		submitter := c.Submit(cluster.Load{
			Prefix: prefix, Count: 2, Rate: 0.5, Work: actor.Work{For: 100}, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "all"},
		})
		c.jobs += 2
		c.AwaitEntry("the first one is there", func(e ledger.Entry) bool {
			return e.What == ledger.Call && e.Job == "work."+prefix+"0" && e.Outcome == ledger.Created
		})
		submitter.Delay(time.Second)
		job := "work." + prefix + "1"
		c.AwaitReport(job, "it is there", func(cluster.Report) bool { return true })
		submitter.Kill()
		if owner {
			c.killOwner()
		}
		c.over(job)
		c.want(job, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	}
	c.finish()
}

// unheard is a broadcast of which no node has heard when all servers are killed.
func unheard(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{}, "w1", "w2", "w3")
	for _, n := range c.nodes {
		n.Delay(time.Second)
	}
	fails, waits := c.both(actor.Work{For: 100})
	c.KillServers()
	for _, n := range c.nodes {
		n.HealLinks()
	}
	began := c.Ledger.Now()
	c.StartServers()
	c.over(fails)
	c.over(waits)
	c.figure("servers are started until the broadcasts have ended", began, c.Ledger.Now())
	for _, job := range []string{fails, waits} {
		c.wantEnds(job, "succeeded w1:succeeded w2:succeeded w3:succeeded")
	}
	c.finish()
}

// outlasted is an outage in which all leases are lost, while parts run and others
// have no slot yet. All nodes live, so no part is lost.
func outlasted(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{Slots: 2}, "w1", "w2", "w3")
	lasts := c.Lease + 3*time.Second
	obeys := c.dispatch(cluster.Broadcast{ID: "obeys", Work: actor.Work{For: ms(lasts)}})
	stays := c.dispatch(cluster.Broadcast{ID: "stays", Work: actor.Work{For: ms(lasts), Deaf: true}})
	for node := range c.nodes {
		c.AwaitPart(obeys, node, 1)
		c.AwaitPart(stays, node, 1)
	}
	unclaimed := c.dispatch(cluster.Broadcast{ID: "unclaimed", Work: actor.Work{For: 100}})
	c.KillServers()
	c.After(lasts)
	c.StartServers()
	c.Settle()
	for _, job := range []string{obeys, stays, unclaimed} {
		c.over(job)
	}
	c.want(obeys, "succeeded w1:succeeded:2 w2:succeeded:2 w3:succeeded:2")
	c.want(stays, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	c.want(unclaimed, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	c.finish()
}

// drainedInIt is a node that is drained, and another one that is asked to end, each
// with a part that runs and one that has no slot yet.
func drainedInIt(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{Slots: 1}, "w1", "w2", "w3")
	work := actor.Work{For: ms(3 * time.Second)}
	first := c.dispatch(cluster.Broadcast{ID: "first", Work: work})
	for node := range c.nodes {
		c.AwaitPart(first, node, 1)
	}
	second := c.dispatch(cluster.Broadcast{ID: "second", Work: work})
	if err := c.Drain("w3"); err != nil {
		t.Fatal(err)
	}
	without := c.dispatch(cluster.Broadcast{ID: "without", Work: actor.Work{For: 10}})
	c.over(first)
	c.over(without)
	c.want(first, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	c.want(without, "succeeded w1:succeeded:1 w2:succeeded:1")
	c.await(second, "waiting w1:succeeded:1 w2:succeeded:1 w3:pending:0")
	if err := c.Undrain("w3"); err != nil {
		t.Fatal(err)
	}
	c.over(second)
	c.want(second, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")

	runs := c.dispatch(cluster.Broadcast{ID: "runs", Work: work})
	c.AwaitPart(runs, "w2", 1)
	fails, waits := c.both(actor.Work{For: 10})
	ends := c.nodes["w2"]
	ends.Term()
	ends.Await()
	c.over(runs)
	c.over(fails)
	c.want(runs, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	c.want(fails, "failed w1:succeeded:1 w2:lost:0 w3:succeeded:1")
	ends.Start()
	c.over(waits)
	c.want(waits, "succeeded w1:succeeded:1 w2:succeeded:1 w3:succeeded:1")
	c.finish()
}

// rolling is a push to one node after the other, of which the second dies. It stops
// there, or waits and goes on when that is back.
func rolling(t *testing.T, servers int) {
	names := []string{"w1", "w2", "w3", "w4"}
	c := newCrew(t, servers, cluster.NodeOptions{}, names...)
	for _, onLost := range []string{"fail", "wait"} {
		b := cluster.Broadcast{ID: onLost, Work: actor.Work{For: 1000}, MaxParallel: 1, OnLost: onLost}
		if onLost == "wait" {
			b.Deadline = patienceOfJobs
		}
		job := c.dispatch(b)
		c.Await("the second one has begun", func() bool { return len(c.startsOf(job)) == 2 })
		victim := c.nodes[c.startsOf(job)[1].Node]
		victim.Kill()
		if onLost == "wait" {
			victim.Start()
		}
		c.over(job)
		r, err := c.Report(job)
		if err != nil {
			t.Fatal(err)
		}
		ran, ended := len(c.startsOf(job)), r.Children
		switch {
		case onLost == "fail" && (r.State != "failed" || ran != 2 || ended.Succeeded != 1 || ended.Lost != 1 || ended.Unstarted != 2):
			t.Errorf("%s is %s after %d starts, %+v: want it to have stopped", job, r, ran, ended)
		case onLost == "wait" && (r.State != "succeeded" || ran != len(names)+1):
			t.Errorf("%s is %s after %d starts, want it to have gone on", job, r, ran)
		}
		if onLost == "fail" {
			victim.Start()
		}
		c.Await(victim.ID+" is ready", victim.Ready)
	}
	c.finish()
}

// startsOf are the starts of a broadcast's parts.
func (c *crew) startsOf(job string) []ledger.Entry {
	c.t.Helper()
	return slices.DeleteFunc(c.Entries(), func(e ledger.Entry) bool { return e.What != ledger.Start || e.Parent != job })
}

// labelled is a broadcast to nodes with a label, and jobs for one node, which dies.
func labelled(t *testing.T, servers int) {
	c := newCrew(t, servers, cluster.NodeOptions{Labels: []string{"zone=a"}}, "w1", "w2")
	for _, name := range []string{"w3", "w4"} {
		c.nodes[name] = c.Worker(name, cluster.NodeOptions{Labels: []string{"zone=b"}})
	}
	zone := c.dispatch(cluster.Broadcast{ID: "zone", Work: actor.Work{For: 100}, Selector: "zone=a"})
	c.over(zone)
	c.want(zone, "succeeded w1:succeeded:1 w2:succeeded:1")
	if _, err := c.Dispatch(cluster.Broadcast{ID: "nowhere", Selector: "zone=c"}); err == nil {
		t.Error("a broadcast to nobody was accepted")
	}
	gone := c.nodes["w4"]
	gone.Stop()
	on := map[string]string{}
	for _, orElse := range []string{"wait", "any", "fail"} {
		on[orElse] = c.dispatch(cluster.Broadcast{ID: orElse, On: "w4", Else: orElse, Work: actor.Work{For: 100}})
	}
	gone.Kill()
	c.Await("what may go elsewhere, or nowhere, has ended", func() bool { return c.Ended(3) >= 3 })
	gone.Start()
	c.finish()
	states := map[string]string{}
	for id, l := range livesOf(c.Cluster) {
		states[id] = l.record.State
	}
	for orElse, state := range map[string]string{"wait": "succeeded", "any": "succeeded", "fail": "lost"} {
		if got := states[on[orElse]]; got != state {
			t.Errorf("the job for a node that died, else %s, is %s, want %s", orElse, got, state)
		}
	}
}
