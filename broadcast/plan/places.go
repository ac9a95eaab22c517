package plan

import (
	"strconv"

	"github.com/millrace/millrace/engine/machine"
)

// Strategy says how shards are spread over nodes. Default [Even].
type Strategy string

// The strategies.
const (
	Even       Strategy = "even"        // as many on each node as on the others; those that can stay do
	Hash       Strategy = "hash"        // each where its number leads: only those of nodes that went move
	RoundRobin Strategy = "round-robin" // one after the other, beginning where the job's name leads
)

// Sharding is how a job is cut.
type Sharding struct {
	Total      int
	Strategy   Strategy
	Name       string   // of the job, for RoundRobin and Hash
	Parameters []string // one for each shard, or none
	Before     []string // the node of each shard in the run before
}

// Places returns the shards with their first places, which are empty if no node
// matches.
func Places(matching []Node, s Sharding) []machine.Share {
	shares := make([]machine.Share, s.Total)
	for i := range shares {
		if i < len(s.Parameters) {
			shares[i].Parameter = s.Parameters[i]
		}
		if len(matching) == 0 {
			continue
		}
		n := matching[i%len(matching)]
		if s.Strategy == Hash {
			n, _ = Choose(matching, s.Name+"="+strconv.Itoa(i))
		}
		shares[i].Node, shares[i].Incarnation = n.ID, n.Incarnation
	}
	return shares
}
