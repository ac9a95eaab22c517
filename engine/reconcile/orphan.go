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

// owner returns who runs the job of a record, if somebody does.
func (r *record) owner() (owner, bool) { return owner{r.Node, r.Incarnation}, r.Node != "" }

func (o owner) clone() owner { o.node = strings.Clone(o.node); return o }

// orphans returns the jobs of a queue whose node is not among those that are
// alive.
func (x *index) orphans(queue string, alive map[string]uint64) []ref {
	x.mu.Lock()
	gone, some := x.owners.which(func(o owner) bool { return alive[o.node] != o.incarnation })
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
	changed := g.survey(ctx) // first: what a dead node leaves behind goes on elsewhere at once
	for _, queue := range g.index.names() {
		g.probe(ctx, g.index.orphans(queue, alive))
	}
	g.place(ctx, changed)
}

// orphaned reports whether the node of a running job was not there when it was
// looked at last.
func (g *round) orphaned(rec *record) bool {
	return rec.State == machine.Running && g.alive != nil && g.alive[rec.Node] != rec.Incarnation
}
