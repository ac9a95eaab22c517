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

var strategies = []plan.Strategy{"", plan.Even, plan.Hash, plan.RoundRobin}

func TestPlacesLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := someNodes(0).Draw(t, "nodes")
		s := someSharding(nodes).Draw(t, "sharding")
		shares := plan.Places(nodes, s)
		if len(shares) != s.Total {
			t.Fatalf("%d shares of %d", len(shares), s.Total)
		}
		for i, share := range shares {
			at := slices.IndexFunc(nodes, func(n plan.Node) bool { return n.ID == share.Node && n.Incarnation == share.Incarnation })
			if (at >= 0) != (len(nodes) > 0) {
				t.Fatalf("shard %d is on %q/%d of %v", i, share.Node, share.Incarnation, nodes)
			}
			if want := slices.Concat(s.Parameters, make([]string, s.Total))[i]; share.Parameter != want {
				t.Fatalf("shard %d is given %q, want %q", i, share.Parameter, want)
			}
		}
		if diff := cmp.Diff(shares, plan.Places(nodes, s)); diff != "" {
			t.Fatalf("asked again (+):\n%s", diff)
		}
	})
}

// Loads differ by at most one, and no shard moves that could have stayed: as many
// stay as there is room for where they were.
func TestEvenPlaces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := someNodes(1).Draw(t, "nodes")
		s := someSharding(nodes).Draw(t, "sharding")
		s.Strategy = plan.Even
		shares := plan.Places(nodes, s)
		counts, had, stayed := map[string]int{}, map[string]int{}, 0
		for i, share := range shares {
			counts[share.Node]++
			if i < len(s.Before) {
				had[s.Before[i]]++
				if s.Before[i] == share.Node {
					stayed++
				}
			}
		}
		least, more := s.Total/len(nodes), s.Total%len(nodes)
		could := 0
		for _, n := range nodes {
			if c := counts[n.ID]; c != least && c != least+1 {
				t.Fatalf("%s has %d shards of %d on %d nodes: %v", n.ID, c, s.Total, len(nodes), counts)
			}
			could += min(had[n.ID], least)
			if had[n.ID] > least && more > 0 {
				more--
				could++
			}
		}
		if stayed != could {
			t.Fatalf("%d shards stayed where they were, and %d could have\nbefore %v\nafter  %v", stayed, could, s.Before, shares)
		}
	})
}

// The run after one on the same nodes is placed like it. When one goes, only its
// shards go elsewhere, and those that have to for the others to be even.
func TestEvenPlacesStay(t *testing.T) {
	t.Parallel()
	nodes := nodesOf("a", "b", "c")
	first := plan.Sharding{Total: 6}
	places := onNodes(plan.Places(nodes, first))
	again := plan.Sharding{Total: 6, Before: places}
	if diff := cmp.Diff(places, onNodes(plan.Places(nodes, again))); diff != "" {
		t.Errorf("before (-), and again (+):\n%s", diff)
	}
	without := onNodes(plan.Places(nodesOf("a", "c"), again))
	for i, node := range places {
		if node != "b" && without[i] != node {
			t.Errorf("b went, and shard %d moved from %s to %s", i, node, without[i])
		}
	}
	back := onNodes(plan.Places(nodes, plan.Sharding{Total: 6, Before: without}))
	moved := 0
	for i, node := range back {
		if node != without[i] {
			moved++
		}
	}
	if moved != 2 {
		t.Errorf("b came back, and %d shards moved, want 2: %v to %v", moved, without, back)
	}
}

func TestEvenPlacesSpareTheBusy(t *testing.T) {
	t.Parallel()
	nodes := nodesOf("a", "b", "c")
	nodes[0].Load, nodes[1].Load = 5, 1
	if got := onNodes(plan.Places(nodes, plan.Sharding{Total: 1})); got[0] != "c" {
		t.Errorf("the only shard is on %s, want c, which has nothing to do", got[0])
	}
}

// Only the shards of nodes that went or came move.
func TestHashPlacesMoveLittle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := someNodes(2).Draw(t, "nodes")
		s := someSharding(nodes).Draw(t, "sharding")
		s.Strategy = plan.Hash
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		before, after := plan.Places(nodes, s), plan.Places(slices.Delete(slices.Clone(nodes), gone, gone+1), s)
		for i := range before {
			if (before[i].Node == nodes[gone].ID) == (before[i].Node == after[i].Node) {
				t.Fatalf("%s went, and shard %d was on %s and is on %s", nodes[gone].ID, i, before[i].Node, after[i].Node)
			}
			key := plan.Key(s.Strategy, s.Name, before[i].Parameter, i)
			if n, _ := plan.Choose(nodes, key); n.ID != before[i].Node {
				t.Fatalf("shard %d is on %s, and its key leads to %s", i, before[i].Node, n.ID)
			}
			if other := plan.Key(plan.Even, s.Name, before[i].Parameter, i); key == "" || other != "" {
				t.Fatalf("the key of shard %d is %q, and %q if it goes anywhere", i, key, other)
			}
		}
	})
}

// A parameter leads to its node, whichever number the shard has.
func TestHashPlacesFollowTheParameter(t *testing.T) {
	t.Parallel()
	nodes := nodesOf("a", "b", "c", "d", "e")
	s := plan.Sharding{Total: 3, Strategy: plan.Hash, Name: "load", Parameters: []string{"north", "south", "west"}}
	turned := s
	turned.Parameters = []string{"west", "north", "south"}
	before, after := onNodes(plan.Places(nodes, s)), onNodes(plan.Places(nodes, turned))
	if want := []string{before[2], before[0], before[1]}; !slices.Equal(after, want) {
		t.Errorf("got %v, want %v", after, want)
	}
}

// One node after the other, from one that the name leads to.
func TestRoundRobinPlaces(t *testing.T) {
	t.Parallel()
	nodes := nodesOf("a", "b", "c")
	firsts := map[string]int{}
	for i := range 300 {
		s := plan.Sharding{Total: 7, Strategy: plan.RoundRobin, Name: fmt.Sprint("load-", i), Before: []string{"a", "a", "a"}}
		got := onNodes(plan.Places(nodes, s))
		firsts[got[0]]++
		order := map[string]string{"a": "b", "b": "c", "c": "a"}
		for shard := 1; shard < len(got); shard++ {
			if got[shard] != order[got[shard-1]] {
				t.Fatalf("shard %d is not on the node after that of the one before: %v", shard, got)
			}
		}
	}
	for _, n := range nodes {
		if firsts[n.ID] < 70 {
			t.Errorf("%d of 300 names begin on %s, want some 100", firsts[n.ID], n.ID)
		}
	}
}

func onNodes(shares []machine.Share) []string {
	var list []string
	for _, s := range shares {
		list = append(list, s.Node)
	}
	return list
}

// someSharding draws something to place, which was on some nodes or others before.
func someSharding(nodes []plan.Node) *rapid.Generator[plan.Sharding] {
	ids := []string{"", "gone"}
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return rapid.Custom(func(t *rapid.T) plan.Sharding {
		total := rapid.IntRange(0, 20).Draw(t, "total")
		return plan.Sharding{
			Total: total, Name: rapid.StringN(0, 5, -1).Draw(t, "name"),
			Strategy:   rapid.SampledFrom(strategies).Draw(t, "strategy"),
			Parameters: rapid.SliceOfN(rapid.StringN(0, 5, -1), 0, total).Draw(t, "parameters"),
			Before:     rapid.SliceOfN(rapid.SampledFrom(ids), 0, total).Draw(t, "before"),
		}
	})
}
