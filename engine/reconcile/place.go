package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/feed"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
)

// Jobs that are for one node need a ruling of the owner when that is gone or drains,
// or if none was found yet: see [store.Store.Place]. The index knows where they are.
// Those of nodes that are gone are looked at in every patrol and at every verdict; the
// others, which may wait for long, when a node has come or changed, and some of them
// in every patrol.

// spot is where a job may run, and what may become of it there.
type spot struct {
	node        string // empty: nowhere yet
	incarnation uint64
	rule        bool // other nodes may have it
	ends        bool // without a rule: something becomes of it when the node is gone
	waits       bool // it has children, and runs nowhere
	turn        bool // it waits for a turn of its schedule, and runs nowhere yet
}

func (s spot) clone() spot { s.node = strings.Clone(s.node); return s }

// spot returns where the job of a record may run, if that is not anywhere.
func (r *record) spot() (spot, bool) {
	switch {
	case r.State == machine.Waiting:
		return spot{waits: true}, true
	case r.Turn != "":
		return spot{turn: true}, true
	case !r.Pinned:
		return spot{}, false
	}
	return spot{node: r.Pin, incarnation: r.PinIncarnation, rule: r.PinRule, ends: !r.PinRule && r.PinElse != machine.ElseWait}, true
}

// homeless reports whether a job is for a node that was not found yet.
func (r *record) homeless() bool { return r.Pinned && r.Pin == "" }

// moves reports whether the owner may have to rule on the jobs of a spot.
func (s spot) moves() bool { return s.rule || s.ends }

// gone reports whether the node of a spot is not there.
func (s spot) gone(alive map[string]uint64) bool {
	return s.moves() && s.node != "" && alive[s.node] == 0
}

// places is the nodes as they were a moment ago, for jobs that need another one. It
// is safe for concurrent use.
type places struct {
	mu    sync.Mutex
	nodes []plan.Node // by ID
	read  time.Time   // when that was
}

// refresh reads the nodes, and reports whether they differ from those before. The
// load is what the index says.
func (p *places) refresh(ctx context.Context, members func(context.Context) ([]plan.Node, error), load map[string]int) (changed bool, err error) {
	nodes, err := members(ctx)
	if err != nil {
		return false, err
	}
	slices.SortFunc(nodes, byID)
	for i := range nodes {
		nodes[i].Load = load[nodes[i].ID]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = p.read.IsZero() || !slices.EqualFunc(p.nodes, nodes, same)
	p.nodes, p.read = nodes, time.Now()
	return changed, nil
}

func byID(a, b plan.Node) int { return cmp.Compare(a.ID, b.ID) }

// same reports whether two nodes may have the same jobs.
func same(a, b plan.Node) bool {
	return a.ID == b.ID && a.Incarnation == b.Incarnation && a.Draining == b.Draining &&
		maps.Equal(a.Labels, b.Labels) && slices.Equal(a.Kinds, b.Kinds) && slices.Equal(a.Queues, b.Queues)
}

// choose returns a node for a job that has a rule: the one that it has if that still
// fits.
func (p *places) choose(j machine.Job) (node string, incarnation uint64) {
	queue, _, err := name.SplitJobID(j.ID)
	if err != nil || j.Pin == nil || j.Pin.Rule == nil {
		return "", 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	matching := plan.Matching(p.nodes, j.Kind, queue, j.Pin.Rule.Select)
	if at, fits := slices.BinarySearchFunc(matching, plan.Node{ID: j.Pin.Node}, byID); fits {
		return matching[at].ID, matching[at].Incarnation
	}
	chosen, ok := plan.Choose(matching, j.Pin.Rule.Key)
	if !ok {
		return "", 0
	}
	if at, there := slices.BinarySearchFunc(p.nodes, chosen, byID); there {
		p.nodes[at].Load++ // it is about to have one more
	}
	return chosen.ID, chosen.Incarnation
}

// known reports whether the nodes were read at all: before that nobody can tell that
// none fits.
func (p *places) known() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.read.IsZero()
}

// misplaced reports whether the job of a record may have to go to another node, as
// the nodes were a moment ago.
func (p *places) misplaced(r *record) bool {
	s, apart := r.spot()
	if !apart || !s.moves() || r.State == machine.Running {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read.IsZero() {
		return false
	}
	at, there := slices.BinarySearchFunc(p.nodes, plan.Node{ID: s.node}, byID)
	switch {
	case !there:
		return true
	case s.ends:
		return s.incarnation != 0 && s.incarnation != p.nodes[at].Incarnation
	}
	queue, _, _ := name.SplitJobID(r.id)                                 // the reader has done that before
	return len(plan.Matching(p.nodes[at:at+1], r.Kind, queue, nil)) == 0 // its labels are not in the headers
}

// load returns how many jobs are for each node, and whether there is one on which the
// owner may have to rule.
func (x *index) load() (load map[string]int, moves bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	load = make(map[string]int)
	for i, s := range x.spots.list {
		if n := x.spots.jobs[i]; n > 0 {
			load[s.node] += int(n)
			moves = moves || s.moves()
		}
	}
	return load, moves
}

// strays returns the jobs of a queue that nobody runs and that are on spots like that,
// at most n if that is not below 0.
func (x *index) strays(queue string, n int, like func(spot) bool) []ref {
	x.mu.Lock()
	list, some := x.spots.which(like)
	x.mu.Unlock()
	if !some {
		return nil
	}
	return x.pick(queue, n, func(e entry) bool { return e.owner == 0 && int(e.spot) < len(list) && list[e.spot] })
}

// survey reads the nodes if there are jobs on which the owner may have to rule, and
// reports whether they differ from those before.
func (g *round) survey(ctx context.Context) (changed bool) {
	load, moves := g.index.load()
	if !moves {
		return false
	}
	changed, err := g.places.refresh(ctx, g.opts.Members, load)
	if err != nil {
		g.fail(ctx, err)
	}
	return changed
}

// nodesAge is how old what is known of the nodes may be when a job gets another one:
// what is orphaned is not in the index yet, for which they are read otherwise.
const nodesAge = time.Second

// meet reads the nodes anew if one of some jobs may need another one.
func (g *round) meet(ctx context.Context, records []record) {
	moves := slices.ContainsFunc(records, func(rec record) bool { return rec.Pinned && rec.PinRule })
	if moves && !g.places.younger(nodesAge) {
		g.renew(ctx)
	}
}

// renew reads the nodes anew.
func (g *round) renew(ctx context.Context) {
	load, _ := g.index.load()
	changed, err := g.places.refresh(ctx, g.opts.Members, load)
	if err != nil {
		g.fail(ctx, err)
	}
	g.stirred = g.stirred || changed
}

// younger reports whether the nodes were read within the last while.
func (p *places) younger(than time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.read.IsZero() && time.Since(p.read) < than
}

// place has those jobs looked at that may need another node: all of them if the nodes
// have changed.
func (g *round) place(ctx context.Context, changed bool) {
	gone := func(s spot) bool { return s.gone(g.alive) }
	there := func(s spot) bool { return s.moves() && !gone(s) && !g.settled(s) }
	most := sample
	if changed {
		most = -1
	}
	for _, queue := range g.index.names() {
		g.probe(ctx, g.index.strays(queue, -1, gone))
		g.probe(ctx, g.index.strays(queue, most, there))
	}
}

// settled reports whether nothing is to be ruled on the jobs of a spot: its node is
// there, in the life that is meant or to keep what has a rule, and does not drain.
func (g *round) settled(s spot) bool {
	g.places.mu.Lock()
	defer g.places.mu.Unlock()
	at, there := slices.BinarySearchFunc(g.places.nodes, plan.Node{ID: s.node}, byID)
	switch {
	case !there:
		return false
	case s.ends:
		return s.incarnation == 0 || s.incarnation == g.places.nodes[at].Incarnation
	}
	return !g.places.nodes[at].Draining
}

// lacksMail reports whether there may be fewer items in the mailboxes than there have to
// be.
func (g *round) lacksMail(ctx context.Context, names []string) (bool, error) {
	needed, now := 0, g.opts.Clock.Now()
	for _, queue := range names {
		needed += g.index.mail(queue, now)
	}
	if needed == 0 {
		return false, nil
	}
	var info struct {
		publish.Refusal
		State struct {
			Messages int `json:"messages"`
		} `json:"state"`
	}
	if err := g.pub.Ask(ctx, "STREAM.INFO."+g.opts.Namespace.MailStream(), nil, &info); err != nil {
		return false, fmt.Errorf("reconcile: count the items in mailboxes: %w", err)
	}
	return info.State.Messages < needed, nil
}

// feed hears of nodes that have come or changed, until stop is called, which waits for
// the last one that was heard of.
func (r *Reconciler) feed() (stop func(), err error) {
	return feed.Hear(r.pub.Conn(), r.opts.Namespace.NodeFeed()+"info.*", func(*nats.Msg) {
		select {
		case r.stir <- struct{}{}:
		default:
		}
	})
}
