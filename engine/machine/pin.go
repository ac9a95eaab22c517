package machine

import "maps"

// Pin says on which node a job runs.
//
// A pin without a [Rule] never moves: that is a part of a broadcast, or a job that
// somebody wants on one node. With a rule the owner places the job anew when its
// node is gone: that is a shard, or a job that any node with some labels may run.
type Pin struct {
	// Node is the only one that may claim the job. Empty: it has no place yet.
	Node string `json:"node,omitempty"`
	// Incarnation is the life of Node that is meant, or 0 if none was seen. A
	// claim makes it that of the claimant.
	Incarnation uint64 `json:"incarnation,omitempty"`
	// Rule says which nodes may have the job after Node; nil: none.
	Rule *Rule `json:"rule,omitempty"`
	// Else is what becomes of the job when Node is gone and there is no other.
	Else Else `json:"else"`
}

// Rule says which nodes may run a job, among those that run its kind and take
// from its queue.
type Rule struct {
	// Select are labels that a node must have.
	Select map[string]string `json:"select,omitempty"`
	// Key leads to one of the nodes, always the same as long as it is there.
	// Empty: whichever has the least to do.
	Key string `json:"key,omitempty"`
}

func (r Rule) same(other *Rule) bool {
	return other != nil && r.Key == other.Key && maps.Equal(r.Select, other.Select)
}

// Else is what becomes of a job whose node is gone.
type Else string

// What can become of a job whose node is gone.
const (
	ElseWait Else = "wait" // it waits for its node, or for one that fits
	ElseAny  Else = "any"  // any worker of its queue may have it
	ElseFail Else = "fail" // it ends as lost
)

// fixed reports whether j is for one node and no other.
func (j Job) fixed() bool { return j.Pin != nil && j.Pin.Rule == nil }

// Barred reports whether node may not claim j.
func (j Job) Barred(node string) bool { return j.Pin != nil && j.Pin.Node != node }

// Homeless reports whether j is for a node that was not found yet.
func (j Job) Homeless() bool { return j.Pin != nil && j.Pin.Node == "" }

// repin returns a pin that means another node, or another life of it.
func (p Pin) repin(node string, incarnation uint64) *Pin {
	p.Node, p.Incarnation = node, incarnation
	return &p
}
