// Package plan says who gets what: which nodes have a part of a broadcast, where
// the shards of a job go, and when enough children have ended. Nothing here does
// I/O: whoever dispatches reads the nodes once and asks.
//
//	nodes ──▶ Matching ──▶ Snapshot, Places ──▶ shares ──▶ (children) ──▶ Tally
//
// Everything is a function of what it is given, so whoever asks again after a
// crash gets the same answer. What is planned is a wish: only a claim makes a node
// the one that runs a job.
//
// Start reading at [Matching], then at [Places] and [Tally].
package plan

import (
	"cmp"
	"hash/fnv"
	"io"
	"slices"

	"github.com/millrace/millrace/engine/machine"
)

// Node is what somebody who plans knows of a node whose beat is there.
type Node struct {
	ID          string
	Incarnation uint64
	Labels      map[string]string
	Kinds       []string // that it has handlers for
	Queues      []string // of which it takes what is pinned to it
	Draining    bool     // it takes nothing new
	// Load is how much it has to do already: jobs that are for it and have not
	// ended. Whoever places several jobs counts each as it goes.
	Load int
}

// Matching returns the nodes that may run a job of kind in queue, by ID: those
// that have a handler, take what is pinned to them of the queue, do not drain, and
// have every label of selector.
func Matching(nodes []Node, kind, queue string, selector map[string]string) []Node {
	var list []Node
	for _, n := range nodes {
		if !n.Draining && slices.Contains(n.Kinds, kind) && slices.Contains(n.Queues, queue) && n.has(selector) {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, byID)
	return list
}

func (n Node) has(selector map[string]string) bool {
	for key, value := range selector {
		if got, ok := n.Labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// Snapshot returns a share for each node: the parts of a broadcast that is
// dispatched now.
func Snapshot(matching []Node) []machine.Share {
	shares := make([]machine.Share, len(matching))
	for i, n := range matching {
		shares[i] = machine.Share{Node: n.ID, Incarnation: n.Incarnation}
	}
	return shares
}

// Choose returns the node that a key leads to. It is the same for as long as that
// node is there: when another one comes or goes, only the keys move that lead to
// it. Without a key it is the node with the least load, the first by ID among
// equals. There is none if none matches.
func Choose(matching []Node, key string) (Node, bool) {
	if len(matching) == 0 {
		return Node{}, false
	}
	if key == "" {
		return slices.MinFunc(matching, byLoad), true
	}
	return slices.MaxFunc(matching, func(a, b Node) int {
		return cmp.Or(cmp.Compare(weight(key, a.ID), weight(key, b.ID)), byID(b, a))
	}), true
}

// weight is a number that looks random. Of all nodes, a key leads to that with the
// largest. It never changes, since builds of different age share the work.
func weight(key, node string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, key+"\x00"+node)
	// FNV alone hardly spreads what differs in the last bytes only.
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func byID(a, b Node) int { return cmp.Compare(a.ID, b.ID) }

func byLoad(a, b Node) int { return cmp.Or(cmp.Compare(a.Load, b.Load), byID(a, b)) }
