package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
)

// Place says on which node a job runs. The zero value is any worker of its queue.
//
// With Node it is for that one, and never for another. With the other fields it is
// for one of the nodes that run its kind, take from its queue, have all the labels of
// Select, and do not drain; when the one that was chosen is gone, or drains before
// the job has started, the owner chooses another. A job with a place has no use for
// its class of priority, and does not count in the concurrency of its queue.
type Place struct {
	// Node is the ID of the only node that may run the job.
	Node string
	// Select are labels that the node must have.
	Select map[string]string
	// Key leads to one of the nodes, always the same as long as it is there.
	// Default: the jobs are spread.
	Key string
	// Near is the ID of a job: the node that ran it last is taken if it is one of
	// those. A job that is not there is no preference.
	Near string
	// Else is what becomes of the job while there is no such node. Default
	// [ElseWait].
	Else Else
}

// Else is what becomes of a job while the node that it is for is not there.
type Else = machine.Else

// What can become of a job while the node that it is for is not there.
const (
	ElseWait = machine.ElseWait // it waits for the node, or for one that fits
	ElseAny  = machine.ElseAny  // any worker of its queue may have it
	ElseFail = machine.ElseFail // it is refused, or ends as lost
)

func (p Place) anywhere() bool {
	return p.Node == "" && len(p.Select) == 0 && p.Key == "" && p.Near == "" && p.Else == ""
}

func (p Place) ruled() bool { return len(p.Select) > 0 || p.Key != "" || p.Near != "" }

func (p Place) validate() error {
	switch {
	case p.anywhere():
		return nil
	case p.Node != "" && p.ruled():
		return errors.New("its place is a node, and labels, a key or a job as well: use one of them")
	case p.Node == "" && !p.ruled():
		return fmt.Errorf("its place says only %q: say which node, labels, key or job", p.Else)
	case !knownElse(p.Else):
		return fmt.Errorf("without a node it is to %q: use wait, any or fail", p.Else)
	case len(p.Key) > maxKey:
		return fmt.Errorf("the key of its place has %d bytes: use up to %d", len(p.Key), maxKey)
	case p.Node != "":
		return name.Check("node", p.Node)
	case p.Near != "":
		if _, _, err := name.SplitJobID(p.Near); err != nil {
			return err
		}
	}
	return checkSelector(p.Select)
}

func knownElse(e Else) bool { return e == "" || e == ElseWait || e == ElseAny || e == ElseFail }

// maxSelector bounds the labels that are asked for, which are part of the records.
const maxSelector = 4096

// checkSelector refuses labels that no node can have, or that are too many for a
// record.
func checkSelector(selector map[string]string) error {
	size := 0
	for key, value := range selector {
		if key == "" {
			return fmt.Errorf("a label is %q: write key=value", "="+value)
		}
		size += len(key) + len(value)
	}
	if size > maxSelector {
		return fmt.Errorf("its labels have %d bytes: use up to %d", size, maxSelector)
	}
	return nil
}

// errNoNode says that there is no node for what is to run.
var errNoNode = errors.New("no node fits")

// placer gives jobs their places. It reads the nodes once, and only if they matter.
type placer struct {
	eng   *Engine
	nodes []plan.Node
	read  bool
}

// place gives a new job its pin. It is refused if it is not to wait for a node, and
// there is none, unless a job of its ID is there, to which the submit attaches.
func (p *placer) place(ctx context.Context, j *machine.Job, o SubmitOptions) error {
	pin, err := p.pin(ctx, *j, o.Place)
	if errors.Is(err, errNoNode) && o.ID != "" {
		if _, missing := p.eng.store.Get(ctx, j.ID); missing == nil {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("engine: submit %s: %w", j.ID, err)
	}
	j.Pin = pin
	return nil
}

// pin returns the pin of a job, or nil if any worker may have it. The error wraps
// [errNoNode] if it is to be refused: the pin is what it would be then.
func (p *placer) pin(ctx context.Context, j machine.Job, place Place) (*machine.Pin, error) {
	if place.anywhere() {
		return nil, nil
	}
	pin := &machine.Pin{Node: place.Node, Else: cmp.Or(place.Else, ElseWait)}
	if place.Node != "" && pin.Else == ElseWait {
		return pin, nil // whether it is there does not matter
	}
	if err := p.learn(ctx); err != nil {
		return nil, err
	}
	var node plan.Node
	found := false
	if place.Node != "" {
		node, found = p.find(place.Node)
	} else {
		pin.Rule = &machine.Rule{Select: place.Select, Key: place.Key}
		node, found = p.choose(ctx, j, place)
	}
	switch {
	case found:
		pin.Node, pin.Incarnation = node.ID, node.Incarnation
	case pin.Else == ElseAny:
		return nil, nil
	case pin.Else == ElseFail:
		return pin, fmt.Errorf("%w: %s", errNoNode, p.missing(j, place))
	}
	return pin, nil
}

// find returns a node that takes new jobs.
func (p *placer) find(id string) (plan.Node, bool) {
	for _, n := range p.nodes {
		if n.ID == id {
			return n, !n.Draining
		}
	}
	return plan.Node{}, false
}

// choose returns one of the nodes that a place allows.
func (p *placer) choose(ctx context.Context, j machine.Job, place Place) (plan.Node, bool) {
	queue, _, _ := name.SplitJobID(j.ID)
	matching := plan.Matching(p.nodes, j.Kind, queue, place.Select)
	if near := p.near(ctx, place.Near); near != "" {
		for _, n := range matching {
			if n.ID == near {
				return n, true
			}
		}
	}
	// Without a key the ID spreads the jobs: nobody has to know who is how busy.
	return plan.Choose(matching, cmp.Or(place.Key, j.ID))
}

// near returns the node that ran a job last, or "" if that is not known.
func (p *placer) near(ctx context.Context, id string) string {
	if id == "" {
		return ""
	}
	entry, err := p.eng.store.Get(ctx, id)
	if err != nil || len(entry.Value.Attempts) == 0 {
		return ""
	}
	return entry.Value.Attempts[len(entry.Value.Attempts)-1].Node
}

// missing says which node is not there.
func (p *placer) missing(j machine.Job, place Place) string {
	if place.Node != "" {
		return fmt.Sprintf("node %s is not there, or drains: let the job wait for it, or use another", place.Node)
	}
	queue, _, _ := name.SplitJobID(j.ID)
	return lacking(j.Kind, queue, place.Select)
}

// lacking says which nodes there are none of.
func lacking(kind, queue string, selector map[string]string) string {
	with := ""
	if len(selector) > 0 {
		with = " with labels " + labels(selector)
	}
	return fmt.Sprintf("there is no node%s that runs %s from queue %s and does not drain: start such a worker, or see the list of nodes", with, kind, queue)
}

// learn reads the nodes.
func (p *placer) learn(ctx context.Context) (err error) {
	if !p.read {
		p.nodes, err = p.eng.members(ctx)
		p.read = err == nil
	}
	return err
}

// labels writes labels as people give them.
func labels(m map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, key+"="+m[key])
	}
	return strings.Join(list, ",")
}
