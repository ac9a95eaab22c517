package plan

import (
	"slices"
	"strconv"

	"github.com/millrace/millrace/engine/machine"
)

// Strategy is how shards are given to nodes. Whichever it is, a shard whose node
// dies later goes to one of the others: under [Hash] to that to which its key leads
// then, otherwise to one with little to do.
type Strategy string

// The strategies.
const (
	// Even gives each node as many shards as any other, or one more or less, and
	// leaves them where they were in the run before if it can.
	Even Strategy = "even"
	// Hash gives a shard to the node that its key leads to: see [Key].
	// When nodes come and go between two runs, the fewest shards move; loads
	// differ.
	Hash Strategy = "hash"
	// RoundRobin gives the shards to one node after the other, beginning with
	// one that depends on the name. So jobs with a single shard each do not
	// all go to the same node.
	RoundRobin Strategy = "round-robin"
)

// Sharding is what is to be placed.
type Sharding struct {
	Total    int      // how many shards there are
	Strategy Strategy // "" is Even
	// Name is the same in every run of what is cut in shards.
	Name string
	// Parameters are what the shards are given, in order; there may be fewer.
	Parameters []string
	// Before is the node of each shard in the run before; there may be fewer.
	Before []string
}

// Key is what leads shard i to its node, and to the next one when that is gone: under
// [Hash] the name and the shard's parameter, or its number if it has none. It is ""
// under the other strategies.
func Key(s Strategy, name, parameter string, i int) string {
	switch {
	case s != Hash:
		return ""
	case parameter != "":
		return name + "/" + parameter
	}
	return name + "=" + strconv.Itoa(i)
}

func (s Sharding) parameter(i int) string {
	if i < len(s.Parameters) {
		return s.Parameters[i]
	}
	return ""
}

// Places returns a share for each shard. They have no node if none matches. The
// nodes are those of [Matching], in that order.
func Places(matching []Node, s Sharding) []machine.Share {
	shares := make([]machine.Share, s.Total)
	for i := range shares {
		shares[i].Parameter = s.parameter(i)
	}
	if len(matching) == 0 {
		return shares
	}
	for i, n := range s.places(matching) {
		shares[i].Node, shares[i].Incarnation = matching[n].ID, matching[n].Incarnation
	}
	return shares
}

// places returns which of some nodes each shard gets.
func (s Sharding) places(nodes []Node) []int {
	places := make([]int, s.Total)
	switch s.Strategy {
	case Hash:
		for i := range places {
			n, _ := Choose(nodes, Key(s.Strategy, s.Name, s.parameter(i), i))
			places[i], _ = slices.BinarySearchFunc(nodes, n, byID)
		}
	case RoundRobin:
		first := int(weight(s.Name, "") % uint64(len(nodes)))
		for i := range places {
			places[i] = (first + i) % len(nodes)
		}
	case Even, "":
		s.even(nodes, places)
	}
	return places
}

const nowhere = -1

// even leaves shards where they were, as far as each node has room, and gives
// the others to the nodes that have room left.
func (s Sharding) even(nodes []Node, places []int) {
	room := s.room(nodes)
	for i := range places {
		places[i] = s.before(nodes, i)
		if at := places[i]; at != nowhere && room[at] > 0 {
			room[at]--
			continue
		}
		places[i] = nowhere
	}
	next := 0
	for i, at := range places {
		if at != nowhere {
			continue
		}
		for room[next%len(nodes)] == 0 {
			next++
		}
		places[i] = next % len(nodes)
		room[places[i]]--
		next++
	}
}

// room returns how many shards each node gets, which are all in all. Where they do
// not come out even, those nodes get one more that had more before, and then those
// with less to do.
func (s Sharding) room(nodes []Node) []int {
	least, more := s.Total/len(nodes), s.Total%len(nodes)
	had, room, order := make([]int, len(nodes)), make([]int, len(nodes)), make([]int, len(nodes))
	for i := range s.Total {
		if at := s.before(nodes, i); at != nowhere {
			had[at]++
		}
	}
	for n := range nodes {
		room[n], order[n] = least, n
	}
	slices.SortFunc(order, func(a, b int) int {
		if crowded := had[a] > least; crowded != (had[b] > least) {
			if crowded {
				return -1
			}
			return 1
		}
		return byLoad(nodes[a], nodes[b])
	})
	for _, n := range order[:more] {
		room[n]++
	}
	return room
}

// before returns which of some nodes had shard i in the run before.
func (s Sharding) before(nodes []Node, i int) int {
	if i >= len(s.Before) {
		return nowhere
	}
	at, found := slices.BinarySearchFunc(nodes, Node{ID: s.Before[i]}, byID)
	if !found {
		return nowhere
	}
	return at
}
