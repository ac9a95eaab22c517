package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace/millrace/nodes"
)

// errNodeGone says that the node of this engine ended for a reason of its own.
var errNodeGone = errors.New("engine: the node is gone")

// member is the engine's registration as a node. It is there while anybody
// uses it: the first user registers, the last one leaves.
type member struct {
	mu    sync.Mutex
	users int
	node  *nodes.Node
	stop  context.CancelFunc
	ended chan struct{} // closed when the node has left
	err   error         // why, once ended is closed
}

// role is what somebody wants the node to be known for.
type role struct {
	serve  bool
	kinds  []string
	queues []string
	slots  int
}

// enter registers the engine as a node, or adds a role to it. The caller must
// call leave when it is done, and return when ended is closed.
func (e *Engine) enter(ctx context.Context, r role) (node *nodes.Node, ended <-chan struct{}, leave func() error, err error) {
	m := &e.member
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users > 0 {
		if err := m.node.SetInfo(ctx, r.add); err != nil {
			return nil, nil, nil, fmt.Errorf("engine: describe node %s: %w", m.node.ID(), err)
		}
	} else if err := e.register(ctx, r); err != nil {
		return nil, nil, nil, err
	}
	m.users++
	return m.node, m.ended, m.leave, nil
}

func (e *Engine) register(ctx context.Context, r role) error {
	m := &e.member
	info := nodes.Info{Labels: e.opts.Labels, Build: e.opts.Build}
	r.add(&info)
	node, err := nodes.Join(ctx, e.pub, nodes.Options{
		Namespace: e.ns, ID: e.opts.Node, Lease: e.settings.Lease, Info: info,
		Runs: e.running.runs, Logger: e.log,
	})
	if err != nil {
		return fmt.Errorf("engine: join as a node: %w", err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.node, m.stop, m.ended, m.err = node, stop, make(chan struct{}), nil
	go func(ended chan struct{}) {
		defer close(ended)
		m.err = node.Run(running)
	}(m.ended)
	return nil
}

// leave ends one use of the node. It returns why the node ended by itself, if
// it did.
func (m *member) leave() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users--
	if m.users > 0 {
		return nil
	}
	m.stop()
	<-m.ended
	if m.err != nil {
		return errors.Join(errNodeGone, m.err)
	}
	return nil
}

// add describes the role in the node's info.
func (r role) add(info *nodes.Info) {
	if r.serve || info.Role == "" {
		info.Role = nodes.RoleWorker
	}
	if r.serve {
		info.Role = nodes.RoleServe
	}
	info.Kinds = union(info.Kinds, r.kinds)
	info.Queues = union(info.Queues, r.queues)
	info.Slots += r.slots
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
