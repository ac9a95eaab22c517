package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// All servers are away for a while, while jobs run and more come in. Nothing that
// finished is run again, wherever its report was; what obeyed the loss of its
// lease is, without a failure; and all is ready soon after the return (I8, I9).
func TestOutage(t *testing.T) {
	var list []scenario
	for _, way := range []string{"kill", "term", "stop", "drop"} {
		for _, o := range []struct {
			lasts      time.Duration
			one, three level
		}{
			{time.Second, short, short},
			{10 * time.Second, short, full},
			{20 * time.Second, never, short},
			{time.Minute, full, full},
			{10 * time.Minute, full, full},
		} {
			if way == "kill" && o.lasts == time.Second {
				o.one = quick
			}
			list = append(list, scenario{name: fmt.Sprintf("%s %v", way, o.lasts), one: o.one, three: o.three, tell: func(t *testing.T, servers int) {
				outage(t, servers, way, o.lasts)
			}})
		}
	}
	tell(t, list...)
}

// Links are cut, and pass nothing, for moments, while many short jobs report and
// are claimed. Each of them runs once.
func TestBlips(t *testing.T) {
	tell(t, scenario{name: "links", one: short, three: short, tell: blips})
}

// away takes all servers away, and brings them back.
type away struct {
	c     *cluster.Cluster
	nodes []*cluster.Node // whose links are dropped
}

// begin takes them away in a way that end takes back.
func (a away) begin(way string) {
	switch way {
	case "kill":
		a.c.KillServers()
	case "term", "stop":
		for _, s := range a.c.Servers() {
			if way == "stop" {
				s.Stop()
			} else {
				s.Term()
			}
		}
	case "drop":
		for _, n := range a.nodes {
			n.Drop()
		}
	}
}

// end brings them back.
func (a away) end(way string) {
	switch way {
	case "stop":
		for _, s := range a.c.Servers() {
			s.Cont()
		}
	case "drop":
		for _, n := range a.nodes {
			n.HealLinks()
		}
	default: // those that were asked to end take their time
		for _, s := range a.c.Servers() {
			s.Await()
		}
		a.c.StartServers()
	}
}

// outage is one of them: jobs run across it, end within it, and come in.
func outage(t *testing.T, servers int, way string, lasts time.Duration) {
	c := begin(t, cluster.Options{Servers: servers})
	const each, rate = 5, 20
	a := away{c: c, nodes: []*cluster.Node{c.Serve("s1", cluster.NodeOptions{}), c.Serve("s2", cluster.NodeOptions{})}}
	for _, name := range []string{"w1", "w2"} {
		a.nodes = append(a.nodes, c.Worker(name, cluster.NodeOptions{Slots: 20}))
	}
	works := map[string]actor.Work{
		"across":   {For: ms(min(lasts, c.Lease) + 2*time.Second)},
		"within":   {For: ms(min(lasts, c.Lease) / 2)},
		"stubborn": {For: ms(max(lasts/2, min(lasts, c.Lease+2*time.Second))), Deaf: true},
	}
	for prefix, work := range works {
		c.Submit(cluster.Load{Prefix: prefix, Count: each, Work: work}).Await()
	}
	quickly := cluster.Load{Prefix: "quick", Count: int((lasts + 6*time.Second).Seconds() * rate), Rate: rate, Work: actor.Work{For: 20}}
	stream := c.Submit(quickly)
	a.nodes = append(a.nodes, stream)
	awaitStarts(c, len(works)*each+rate)
	began := c.Ledger.Now()
	a.begin(way)
	c.After(lasts)
	a.end(way)
	c.Settle()
	lasted := time.Duration(c.Ledger.Now() - began)
	stream.Await()
	c.AwaitEnded(len(works)*each + quickly.Count)
	c.Judge()
	checkOutage(t, c, lasts, lasted, servers == 3 && way != "drop")
}

// checkOutage checks that nothing ran again that did not obey the loss of its
// lease, and that the leases were lost if the servers were away for long, and not
// if they were well again after a moment. An election may come on top of that.
func checkOutage(t *testing.T, c *cluster.Cluster, lasts, lasted time.Duration, elects bool) {
	t.Helper()
	obeyed, late := 0, 0
	for id, l := range livesOf(c) {
		l.onlyObeyedAgain(t)
		obeyed += l.obeyed()
		if strings.Contains(id, ".stubborn") && l.end(1).Cause == ledger.LeaseLost {
			late++
		}
	}
	t.Logf("the servers were well after %v: %d handlers obeyed the loss of the lease, %d ended after it and were not run again", lasted.Round(10*time.Millisecond), obeyed, late)
	if lasts > c.Lease && (obeyed == 0 || late == 0) {
		t.Error("want some of both: the servers were away for longer than the lease")
	}
	if lasted < c.Lease/3 && !elects && obeyed+late > 0 {
		t.Error("want none: the servers were away for a moment")
	}
}

// blips cuts links off in turns, also that of the submitter.
func blips(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.Serve("s1", cluster.NodeOptions{})
	w1, w2 := c.Worker("w1", cluster.NodeOptions{Slots: 20}), c.Worker("w2", cluster.NodeOptions{Slots: 20})
	rounds := scale(2, 8, 40)
	const rate = 200
	jobs := (2*rounds + 4) * rate
	load := c.Submit(cluster.Load{Prefix: "j", Count: jobs, Rate: rate, Work: actor.Work{For: 20}})
	awaitStarts(c, rate)
	for round := range rounds {
		blip := time.Duration(200+100*(round%8)) * time.Millisecond
		switch round % 4 {
		case 0:
			w1.Cut()
		case 1:
			w1.Drop()
		case 2:
			w1.Cut()
			w2.Drop()
		case 3:
			load.Cut()
			w2.Cut()
		}
		c.After(blip)
		for _, n := range []*cluster.Node{w1, w2, load} {
			n.HealLinks()
		}
		c.After(2*time.Second - blip)
	}
	load.Await()
	c.AwaitEnded(jobs)
	c.Judge()
	for _, l := range livesOf(c) {
		l.onlyObeyedAgain(t)
	}
}
