package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/millrace/millrace/engine/machine"
)

// Node is a node as it is chosen.
type Node struct {
	ID          string
	Incarnation uint64
	Labels      map[string]string
	Kinds       []string // that it has handlers for
	Queues      []string // that it takes from
	Draining    bool     // it takes nothing new
	Load        int      // how much it has to do
}

// Matching returns those of some nodes that may have a job of a kind and a queue,
// by ID: they have its handler, take from its queue, have all the labels of the
// selector, and do not drain.
func Matching(nodes []Node, kind, queue string, selector map[string]string) []Node {
	var matching []Node
	for _, n := range nodes {
		if !n.Draining && slices.Contains(n.Kinds, kind) && slices.Contains(n.Queues, queue) && n.has(selector) {
			matching = append(matching, n)
		}
	}
	slices.SortFunc(matching, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return matching
}

func (n Node) has(labels map[string]string) bool {
	for key, value := range labels {
		if found, ok := n.Labels[key]; !ok || found != value {
			return false
		}
	}
	return true
}

// Snapshot returns the shares of a broadcast to matching nodes: one each.
func Snapshot(matching []Node) []machine.Share {
	shares := make([]machine.Share, len(matching))
	for i, n := range matching {
		shares[i] = machine.Share{Node: n.ID, Incarnation: n.Incarnation}
	}
	return shares
}

// Choose returns the node that a key leads to among matching ones, always the same
// as long as it is there, or for no key the one with the least to do.
func Choose(matching []Node, key string) (Node, bool) {
	if len(matching) == 0 {
		return Node{}, false
	}
	if key == "" {
		return slices.MinFunc(matching, func(a, b Node) int {
			return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(a.ID, b.ID))
		}), true
	}
	return slices.MaxFunc(matching, func(a, b Node) int {
		return cmp.Or(cmp.Compare(weight(key, a.ID), weight(key, b.ID)), cmp.Compare(b.ID, a.ID))
	}), true
}

// weight is how much a key is drawn to a node.
func weight(key, node string) uint64 {
	sum := sha256.Sum256([]byte(key + "\x00" + node))
	return binary.BigEndian.Uint64(sum[:])
}
