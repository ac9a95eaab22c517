package nodes

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// The roles of a node.
const (
	RoleServe  = "serve"  // runs the engine, and stands for owner
	RoleWorker = "worker" // runs handlers
)

// Info describes a node.
type Info struct {
	Labels   map[string]string `json:"labels,omitempty"`
	Kinds    []string          `json:"kinds,omitempty"`    // that it has handlers for
	Queues   []string          `json:"queues,omitempty"`   // that it works on
	Pinned   []string          `json:"pinned,omitempty"`   // further ones, of which it takes only what is pinned to it
	Slots    int               `json:"slots"`              // how many jobs it runs at once
	Role     string            `json:"role,omitempty"`     // RoleServe or RoleWorker
	Build    string            `json:"build,omitempty"`    // the version of the program
	Draining bool              `json:"draining,omitempty"` // it takes nothing new
	Drained  bool              `json:"drained,omitempty"`  // because somebody asked for that; the process does not set it
	Host     string            `json:"host,omitempty"`     // default: the name of the machine
	PID      int               `json:"pid,omitempty"`      // default: that of this process
	Started  time.Time         `json:"started"`            // default: when it joined
}

// clone returns a copy that shares nothing with i.
func (i Info) clone() Info {
	i.Labels = maps.Clone(i.Labels)
	i.Kinds, i.Queues, i.Pinned = slices.Clone(i.Kinds), slices.Clone(i.Queues), slices.Clone(i.Pinned)
	return i
}

// TakesFrom reports whether the node works on a queue: it takes what is for whoever
// has a slot, and what is pinned to it.
func (i Info) TakesFrom(queue string) bool { return slices.Contains(i.Queues, queue) }

// TakesPinned reports whether the node takes jobs of a queue that are pinned to it.
func (i Info) TakesPinned(queue string) bool {
	return i.TakesFrom(queue) || slices.Contains(i.Pinned, queue)
}

const (
	// keepFor is how long a description and a verdict outlive their last write.
	keepFor = 24 * time.Hour
	// refreshEvery is how often a description is written although it is the same.
	refreshEvery = 6 * time.Hour
)

// The keys of a node in the nodes bucket.
func beatKey(node string) string { return "beat." + node }
func infoKey(node string) string { return "info." + node }
func deadKey(node string) string { return "dead." + node }

// OwnerKey is the key of the owner's lease in the leases bucket. The holder's
// name is the ID of the owner's node, a dot, and what tells one process from
// every other.
const OwnerKey = "owner"

// ownerNode returns the ID of the node that holds the owner's lease.
func ownerNode(held kv.Held) string {
	node, _, _ := strings.Cut(held.Holder, ".")
	return node
}

// The nodes bucket holds values of three types.
func openBeats(pub *publish.Publisher, ns streams.Namespace) *kv.Bucket[kv.Held] {
	return kv.Open(pub, ns.Bucket(streams.Nodes), kv.JSON[kv.Held]())
}

func openInfos(pub *publish.Publisher, ns streams.Namespace) *kv.Bucket[Info] {
	return kv.Open(pub, ns.Bucket(streams.Nodes), kv.JSON[Info]())
}

func openVerdicts(pub *publish.Publisher, ns streams.Namespace) *kv.Bucket[uint64] {
	return kv.Open(pub, ns.Bucket(streams.Nodes), kv.JSON[uint64]())
}

func openLeases(pub *publish.Publisher, ns streams.Namespace) *kv.Bucket[kv.Held] {
	return kv.Open(pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
}
