package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
)

func TestMatching(t *testing.T) {
	t.Parallel()
	fits := plan.Node{
		ID: "b", Incarnation: 7, Kinds: []string{"db.load", "db.check"}, Queues: []string{"mail", "db"},
		Labels: map[string]string{"zone": "north", "disk": "fast", "empty": ""},
	}
	change := func(f func(*plan.Node)) plan.Node {
		n := fits
		f(&n)
		return n
	}
	for name, c := range map[string]struct {
		node     plan.Node
		selector map[string]string
		want     bool
	}{
		"everybody":          {fits, nil, true},
		"one label":          {fits, map[string]string{"disk": "fast"}, true},
		"all labels":         {fits, map[string]string{"disk": "fast", "zone": "north"}, true},
		"a label is missing": {fits, map[string]string{"disk": "fast", "rack": "1"}, false},
		"another value":      {fits, map[string]string{"disk": "slow"}, false},
		"an empty label":     {fits, map[string]string{"empty": ""}, true},
		"empty is not none":  {fits, map[string]string{"rack": ""}, false},
		"it drains":          {change(func(n *plan.Node) { n.Draining = true }), nil, false},
		"no handler":         {change(func(n *plan.Node) { n.Kinds = []string{"db.load"} }), nil, false},
		"another queue":      {change(func(n *plan.Node) { n.Queues = []string{"mail"} }), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := plan.Matching([]plan.Node{c.node}, "db.check", "db", c.selector)
			if (len(got) == 1) != c.want {
				t.Errorf("got %v of %+v, want it: %t", got, c.node, c.want)
			}
		})
	}
}

func TestSnapshotIsByID(t *testing.T) {
	t.Parallel()
	nodes := nodesOf("c", "a", "b")
	got := plan.Snapshot(plan.Matching(nodes, kind, queue, nil))
	want := []machine.Share{{Node: "a", Incarnation: 2}, {Node: "b", Incarnation: 3}, {Node: "c", Incarnation: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if nodes[0].ID != "c" {
		t.Errorf("the list of the caller changed: %v", nodes)
	}
	if got := plan.Snapshot(nil); len(got) != 0 {
		t.Errorf("shares of nobody: %v", got)
	}
}

func TestChooseTheLeastLoad(t *testing.T) {
	t.Parallel()
	nodes := nodesOf("a", "b", "c")
	nodes[0].Load, nodes[1].Load, nodes[2].Load = 2, 1, 1
	if n, ok := plan.Choose(nodes, ""); !ok || n.ID != "b" {
		t.Errorf("got %v, %t, want b: c has as little to do, and comes later", n.ID, ok)
	}
	if n, ok := plan.Choose(nil, ""); ok {
		t.Errorf("chose %v of nobody", n)
	}
	if n, ok := plan.Choose(nil, "k"); ok {
		t.Errorf("chose %v of nobody by a key", n)
	}
}

// What a key leads to must not change from build to build.
func TestChooseByKeyIsStable(t *testing.T) {
	t.Parallel()
	got := ""
	for i := range 12 {
		n, _ := plan.Choose(nodesOf("a", "b", "c"), fmt.Sprint("order-", i))
		got += n.ID
	}
	if want := "caacabcbacca"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// When a node goes, the keys move that led to it. When it comes back, so do they.
func TestChooseByKeyMovesLittle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := someNodes(1).Draw(t, "nodes")
		key := rapid.StringN(1, 20, -1).Draw(t, "key")
		before, _ := plan.Choose(nodes, key)
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		after, ok := plan.Choose(slices.Delete(slices.Clone(nodes), gone, gone+1), key)
		switch {
		case nodes[gone].ID != before.ID && after.ID != before.ID:
			t.Fatalf("%s went, and the key moved from %s to %s", nodes[gone].ID, before.ID, after.ID)
		case ok && after.ID == nodes[gone].ID:
			t.Fatalf("the key leads to %s, which is gone", after.ID)
		}
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		if again, _ := plan.Choose(shuffled, key); again.ID != before.ID {
			t.Fatalf("in another order the key leads to %s, and not to %s", again.ID, before.ID)
		}
	})
}

func TestKeysSpread(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	nodes := nodesOf("web-0", "web-1", "web-2", "web-3", "web-4")
	for i := range 10_000 {
		n, _ := plan.Choose(nodes, fmt.Sprint("k", i))
		counts[n.ID]++
	}
	for _, n := range nodes {
		if got := counts[n.ID]; got < 1_800 || got > 2_200 {
			t.Errorf("%s got %d of 10000 keys, want some 2000: %v", n.ID, got, counts)
		}
	}
}

const (
	kind  = "db.check"
	queue = "db"
)

// nodesOf returns nodes that match, in incarnations 1, 2 and so on.
func nodesOf(ids ...string) []plan.Node {
	var list []plan.Node
	for i, id := range ids {
		list = append(list, plan.Node{ID: id, Incarnation: uint64(i) + 1, Kinds: []string{kind}, Queues: []string{queue}})
	}
	return list
}

// someNodes draws nodes that match, by ID, at least so many.
func someNodes(least int) *rapid.Generator[[]plan.Node] {
	return rapid.Custom(func(t *rapid.T) []plan.Node {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d][0-9]?`), least, 9, rapid.ID[string]).Draw(t, "ids")
		nodes := nodesOf(ids...)
		for i := range nodes {
			nodes[i].Load = rapid.IntRange(0, 3).Draw(t, "load")
		}
		return plan.Matching(nodes, kind, queue, nil)
	})
}
