package reconcile

import (
	"context"
	"strings"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/nodes"
)

// owner is an incarnation of a node.
type owner struct {
	node        string
	incarnation uint64
}

// owners numbers those who run jobs, from 1.
type owners struct {
	numbers map[owner]uint32
	list    []owner // by number, from 1
	jobs    []int32 // how many each has
}

// number returns the number of an incarnation, or 0 for that of no node.
func (o *owners) number(node string, incarnation uint64) uint32 {
	if node == "" {
		return 0
	}
	key := owner{node, incarnation}
	n := o.numbers[key]
	if n == 0 {
		if o.numbers == nil {
			o.numbers = make(map[owner]uint32)
		}
		key.node = strings.Clone(node)
		o.list, o.jobs = append(o.list, key), append(o.jobs, 0)
		n = uint32(len(o.list))
		o.numbers[key] = n
	}
	return n
}

// count adds to the jobs of an owner.
func (o *owners) count(number uint32, n int32) {
	if number > 0 {
		o.jobs[number-1] += n
	}
}

// orphans returns the jobs of a queue whose node is not among those that are
// alive.
func (x *index) orphans(queue string, alive map[string]uint64) []ref {
	x.mu.Lock()
	gone := make([]bool, len(x.owners.list)+1)
	some := false
	for i, o := range x.owners.list {
		gone[i+1] = x.owners.jobs[i] > 0 && alive[o.node] != o.incarnation
		some = some || gone[i+1]
	}
	x.mu.Unlock()
	if !some {
		return nil
	}
	return x.pick(queue, -1, func(e entry) bool { return int(e.owner) < len(gone) && gone[e.owner] })
}

// Wake says that a node was found dead: its jobs are looked at soon.
func (r *Reconciler) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// adopt looks at the jobs of the nodes that are gone. Those that were claimed of
// late are not in the index yet: they are found when the reader gets there.
func (g *round) adopt(ctx context.Context) {
	alive, err := nodes.Living(ctx, g.pub, g.opts.Namespace)
	if err != nil {
		g.fail(ctx, err)
		return
	}
	g.alive = alive
	for _, queue := range g.index.names() {
		g.probe(ctx, g.index.orphans(queue, alive))
	}
}

// orphaned reports whether the node of a running job was not there when it was
// looked at last.
func (g *round) orphaned(rec *record) bool {
	return rec.State == machine.Running && g.alive != nil && g.alive[rec.Node] != rec.Incarnation
}
