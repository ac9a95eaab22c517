package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/nodes"
)

// errNodeGone says that the node of this engine ended for a reason of its own.
var errNodeGone = errors.New("engine: the node is gone")

// member is the engine's registration as a node. It is there while anybody
// uses it: the first user registers, the last one leaves.
type member struct {
	turn chan struct{} // has a token while somebody enters or leaves

	mu    sync.Mutex
	roles []*role // of those who use it
	node  *nodes.Node
	stop  context.CancelFunc
	ended chan struct{} // closed when the node has left
	err   error         // why, once ended is closed
}

// role is what somebody wants the node to be known for.
type role struct {
	serve      bool
	kinds      []string
	queues     []string
	pinnedOnly bool // a worker that takes of its queues what is pinned to it
	slots      int
	draining   bool // a worker that takes no more
}

// membership is one use of the node.
type membership struct {
	eng   *Engine
	role  *role
	node  *nodes.Node
	ended <-chan struct{} // closed when the node has ended: leave says why
}

// enter registers the engine as a node, or adds a role to it. The caller must
// call leave when it is done, and be done when the node has ended.
func (e *Engine) enter(ctx context.Context, r role) (*membership, error) {
	m := &e.member
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("engine: join as a node: %w", context.Cause(ctx))
	}
	if m.change(func(roles []*role) []*role { return append(roles, &r) }) == 1 {
		if err := e.register(ctx); err != nil {
			m.change(func([]*role) []*role { return nil })
			return nil, fmt.Errorf("engine: join as a node: %w", err)
		}
	} else {
		e.describeNode(ctx)
	}
	return &membership{e, &r, m.node, m.ended}, nil
}

// leave ends a use of the node, also if ctx has ended. It returns why the node
// ended by itself, if it did.
func (u *membership) leave(ctx context.Context) error {
	m := &u.eng.member
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	left := m.change(func(roles []*role) []*role {
		return slices.DeleteFunc(roles, func(r *role) bool { return r == u.role })
	})
	if left > 0 {
		select {
		case <-m.ended:
		default:
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			u.eng.describeNode(ctx)
			return nil
		}
	}
	m.stop()
	<-m.ended
	if m.err != nil {
		return fmt.Errorf("%w: %w", errNodeGone, m.err)
	}
	return nil
}

// drain lets others see that the worker of this use takes no more.
func (u *membership) drain(ctx context.Context) {
	u.eng.member.change(func(roles []*role) []*role {
		u.role.draining = true
		return roles
	})
	u.eng.describeNode(ctx)
}

// change changes the roles and returns how many there are.
func (m *member) change(f func([]*role) []*role) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roles = f(m.roles)
	return len(m.roles)
}

// ready reports whether the node is registered, if there is one.
func (m *member) ready() bool {
	m.mu.Lock()
	used, node := len(m.roles) > 0, m.node
	m.mu.Unlock() // the node describes itself under its own lock, and asks for this one then
	return !used || node != nil && node.Ready()
}

// used reports whether there is a node, or is going to be one.
func (m *member) used() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.roles) > 0
}

// slots returns how many handlers may run at once.
func (m *member) slots() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.roles {
		n += r.slots
	}
	return n
}

// register makes the process a node. The caller has the turn.
func (e *Engine) register(ctx context.Context) error {
	m := &e.member
	info := nodes.Info{Labels: e.opts.Labels, Build: e.opts.Build}
	m.describe(&info)
	node, err := nodes.Join(ctx, e.pub, nodes.Options{
		Namespace: e.ns, ID: e.opts.Node, Lease: e.settings.Lease, Info: info,
		Runs: e.running.Runs, End: e.running.Cancel, Lost: e.metrics.LeaseLost, Load: e.running.Count, Settle: e.idle, Look: e.lookForMail, Logger: e.log,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node, m.stop, m.ended, m.err = node, stop, make(chan struct{}), nil
	go func(ended chan struct{}) {
		defer close(ended)
		m.err = node.Run(running)
	}(m.ended)
	return nil
}

// describeNode tells others of the roles. If that fails now, or ctx has ended, the
// node makes up for it.
func (e *Engine) describeNode(ctx context.Context) {
	if err := e.member.node.SetInfo(ctx, e.member.describe); err != nil && ctx.Err() == nil {
		e.log.InfoContext(ctx, "description of node is late", "node", e.member.node.ID(), "err", err)
	}
}

// describe writes all roles into the node's info. It drains if all its workers
// do; those that do are left out as long as others work.
func (m *member) describe(info *nodes.Info) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info.Role, info.Kinds, info.Queues, info.Pinned, info.Slots = nodes.RoleWorker, nil, nil, nil, 0
	workers, draining := 0, 0
	for _, r := range m.roles {
		if !r.serve {
			workers++
		}
		if r.draining {
			draining++
		}
	}
	info.Draining = draining > 0 && draining == workers
	for _, r := range m.roles {
		if !r.draining || info.Draining {
			r.add(info)
		}
	}
	info.Pinned = slices.DeleteFunc(info.Pinned, info.TakesFrom)
}

// add describes the role in the node's info.
func (r role) add(info *nodes.Info) {
	if r.serve {
		info.Role = nodes.RoleServe
	}
	info.Kinds = union(info.Kinds, r.kinds)
	if r.pinnedOnly {
		info.Pinned = union(info.Pinned, r.queues)
	} else {
		info.Queues = union(info.Queues, r.queues)
	}
	info.Slots += r.slots
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// Nodes returns the nodes that are there or were within the last day, by ID.
func (e *Engine) Nodes(ctx context.Context) ([]nodes.Member, error) {
	return nodes.List(ctx, e.pub, e.ns)
}

// Node returns a node that is there or was within the last day. It returns
// [ErrNotFound] otherwise.
func (e *Engine) Node(ctx context.Context, id string) (nodes.Member, error) {
	list, err := nodes.List(ctx, e.pub, e.ns)
	if err != nil {
		return nodes.Member{}, fmt.Errorf("engine: get node: %w", err)
	}
	for _, m := range list {
		if m.ID == id {
			return m, nil
		}
	}
	return nodes.Member{}, fmt.Errorf("engine: get node %s: %w", id, absent("it is not there, and was not within the last day"))
}
