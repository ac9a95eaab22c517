package reconcile

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/publish"
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

// Look says which jobs may be those of a node that was found dead, and may not have
// been read yet: they are looked at soon. It does not block.
func (r *Reconciler) Look(ids []string) {
	r.stranded.Lock()
	r.stranded.ids = append(r.stranded.ids, ids...)
	r.stranded.Unlock()
	r.Wake()
}

// pointed looks at the jobs that somebody has pointed at, if their nodes are gone. Those
// that could not be read are found when the reader gets there.
func (g *round) pointed(ctx context.Context) {
	g.stranded.Lock()
	ids := g.stranded.ids
	g.stranded.ids = nil
	g.stranded.Unlock()
	if len(ids) == 0 {
		return
	}
	records := make([]record, len(ids))
	var calls errgroup.Group
	calls.SetLimit(atOnce)
	for i, id := range ids {
		calls.Go(func() (err error) {
			records[i], err = g.get(ctx, publish.Query{Last: "$KV." + g.bucket() + "." + id})
			if publish.Gone(err) {
				err = nil
			}
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		g.fail(ctx, err)
	}
	g.renew(ctx)
	g.look(ctx, slices.DeleteFunc(records, func(rec record) bool {
		return rec.id == "" || !g.orphaned(&rec) && !g.places.misplaced(&rec)
	}))
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
