package engine

import (
	"context"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/nodes"
)

// members returns the nodes that are there, for those who plan where jobs go. It
// may be some milliseconds behind.
func (e *Engine) members(ctx context.Context) ([]plan.Node, error) {
	list, err := nodes.List(ctx, e.pub, e.ns)
	if err != nil {
		return nil, err
	}
	var there []plan.Node
	for _, m := range list {
		if m.State != nodes.Offline {
			there = append(there, plan.Node{
				ID: m.ID, Incarnation: m.Incarnation, Labels: m.Labels, Kinds: m.Kinds, Queues: union(m.Queues, m.Pinned),
				Draining: m.State == nodes.Draining,
			})
		}
	}
	return there, nil
}
