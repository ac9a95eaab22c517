package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// All workers are replaced one after the other, as in a deployment, while jobs
// come in.
func TestReplacement(t *testing.T) {
	tell(
		t,
		scenario{"new-IDs", short, short, replacement{}.tell},
		scenario{"same-IDs", short, full, replacement{sameIDs: true}.tell},
		scenario{"owners-too", full, full, replacement{owners: true}.tell},
	)
}

// replacement is a deployment: every few seconds one worker is asked to end, and
// another one is started.
type replacement struct {
	sameIDs bool // each is started again under its ID, as soon as it has ended
	owners  bool // the node that serves, which is the owner, is replaced as often
}

func (r replacement) tell(t *testing.T, servers int) {
	const workers = 10
	m := newMembership(t, servers)
	var team []*cluster.Node
	for i := range workers {
		team = append(team, m.hire(fmt.Sprintf("w%d", i+1), cluster.NodeOptions{}))
	}
	every, lasts := scale(time.Second, 2*time.Second, 5*time.Second), scale(5*time.Second, 20*time.Second, 2*time.Minute)
	rate := scale(50.0, 100, 100)
	quickly := cluster.Load{Prefix: "a", Count: int(rate * lasts.Seconds()), Rate: rate, Work: actor.Work{For: 20}}
	slowly := cluster.Load{Prefix: "b", Count: int(2 * lasts.Seconds()), Rate: 2, Work: actor.Work{For: 2000}}
	began := m.Ledger.Now()
	loads := []*cluster.Node{m.Submit(quickly), m.Submit(slowly)}
	for n := range int(lasts / every) {
		m.After(every)
		old := team[0]
		team = append(team[1:], r.replace(m, old, workers+n+1))
		if r.owners {
			next := m.Serve(fmt.Sprintf("s%d", n+2), cluster.NodeOptions{Early: true})
			m.serving.Term()
			m.serving = next
		}
	}
	for _, l := range loads {
		l.Await()
	}
	m.AwaitEnded(quickly.Count + slowly.Count)
	m.figure(fmt.Sprintf("%d jobs over %d replacements", quickly.Count+slowly.Count, lasts/every), began, m.Ledger.Now())
	m.succeeded(quickly.Count + slowly.Count)
	m.checkTeam(team)
	m.checkOnce()
	m.Judge()
}

// replace has a worker end, and starts its successor.
func (r replacement) replace(m *membership, old *cluster.Node, number int) *cluster.Node {
	m.t.Helper()
	old.Term()
	if !r.sameIDs {
		return m.hire(fmt.Sprintf("w%d", number), cluster.NodeOptions{Early: true})
	}
	old.Await()
	old.Start()
	return old
}

// checkTeam checks that the workers that are there are listed, and no other.
func (m *membership) checkTeam(team []*cluster.Node) {
	m.t.Helper()
	var want []string
	for _, n := range team {
		want = append(want, n.ID)
		m.Await(n.Name()+" is ready", n.Ready)
	}
	var got []string
	m.Await("no worker is listed that leaves", func() bool {
		list, err := m.nodes()
		if err != nil {
			return false
		}
		got = nil
		for _, n := range list {
			if n.State != "offline" && n.Role == "worker" {
				got = append(got, n.ID)
			}
		}
		return len(got) <= len(want)
	})
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		m.t.Errorf("the workers that are listed (-want +got):\n%s", d)
	}
}
