package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
)

type nodeCmd struct {
	List    nodeListCmd    `cmd:"" help:"List the nodes that are there or were within the last day."`
	Get     nodeGetCmd     `cmd:"" help:"Print a node."`
	Drain   nodeDrainCmd   `cmd:"" help:"Let a node take no more jobs. What runs there goes on. Returns when nothing new starts there."`
	Undrain nodeUndrainCmd `cmd:"" help:"Let a node that was drained take jobs again."`
}

type nodeListCmd struct{}

// node is a node as the command prints it.
type node struct {
	ID          string            `json:"id"`
	Incarnation uint64            `json:"incarnation"` // 0 if it is offline
	State       nodes.State       `json:"state"`
	Owner       bool              `json:"owner"`
	Role        string            `json:"role"`
	Kinds       []string          `json:"kinds"`
	Queues      []string          `json:"queues"`
	Pinned      []string          `json:"pinned_queues,omitempty"` // of which it takes only what is pinned to it
	Slots       int               `json:"slots"`
	Labels      map[string]string `json:"labels"`
	Build       string            `json:"build"`
	Draining    bool              `json:"draining"` // it takes nothing new
	Drained     bool              `json:"drained"`  // because somebody asked for that
	Host        string            `json:"host"`
	PID         int               `json:"pid"`
	Started     time.Time         `json:"started_at"`
}

var nodeColumns = []column[node]{
	{"node", func(n node) string { return n.ID }},
	{"state", func(n node) string { return string(n.State) }},
	{"role", func(n node) string { return role(n) }},
	{"slots", func(n node) string { return strconv.Itoa(n.Slots) }},
	{"kinds", func(n node) string { return strings.Join(n.Kinds, " ") }},
	{"labels", func(n node) string { return labels(n.Labels) }},
	{"incarnation", incarnation},
	{"started", func(n node) string { return show.Time(&n.Started) }},
}

// Run prints the nodes.
func (nodeListCmd) Run(ctx context.Context, e *env) error {
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	members, err := eng.Nodes(ctx)
	if err != nil {
		return err
	}
	found := make([]node, len(members))
	for i, m := range members {
		found[i] = printed(m)
	}
	return list(e, found, nodeColumns)
}

// printed returns a node with lists that are there also where they are empty.
func printed(m nodes.Member) node {
	n := node{
		ID: m.ID, Incarnation: m.Incarnation, State: m.State, Owner: m.Owner, Role: m.Role,
		Kinds: append([]string{}, m.Kinds...), Queues: append([]string{}, m.Queues...), Pinned: m.Pinned,
		Slots: m.Slots, Labels: map[string]string{}, Build: m.Build, Draining: m.Draining, Drained: m.Drained,
		Host: m.Host, PID: m.PID, Started: m.Started.UTC(),
	}
	maps.Copy(n.Labels, m.Labels)
	return n
}

func incarnation(n node) string {
	if n.Incarnation == 0 {
		return ""
	}
	return strconv.FormatUint(n.Incarnation, 10)
}

// role says what a node is, and what makes it another than most.
func role(n node) string {
	text := n.Role
	if len(n.Pinned) > 0 && len(n.Queues) == 0 {
		text += ", pinned only"
	}
	if n.Owner {
		text += ", owner"
	}
	return text
}

func labels(set map[string]string) string {
	var all []string
	for k, v := range set {
		all = append(all, fmt.Sprintf("%s=%s", k, v))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

type nodeGetCmd struct {
	ID string `arg:"" help:"ID of the node."`
}

// Run prints a node.
func (c nodeGetCmd) Run(ctx context.Context, e *env) error {
	return c.on(ctx, e, func(*engine.Engine) error { return nil })
}

// on does something to a node and prints it then.
func (c nodeGetCmd) on(ctx context.Context, e *env, do func(*engine.Engine) error) error {
	if err := usage(name.Check("node", c.ID)); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	if err := do(eng); err != nil {
		return err
	}
	m, err := eng.Node(ctx, c.ID)
	if errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("node %s is not in namespace %s, and was not within the last day: see millrace node list", c.ID, e.Namespace)
	}
	if err != nil {
		return err
	}
	n := printed(m)
	return describe(e, n, []field{
		{"node", n.ID},
		{"state", standing(n)},
		{"role", role(n)},
		{"slots", strconv.Itoa(n.Slots)},
		{"kinds", strings.Join(n.Kinds, " ")},
		{"queues", strings.Join(n.Queues, " ")},
		{"pinned only", strings.Join(n.Pinned, " ")},
		{"labels", labels(n.Labels)},
		{"incarnation", incarnation(n)},
		{"build", n.Build},
		{"host", n.Host},
		{"process", strconv.Itoa(n.PID)},
		{"started", show.Time(&n.Started)},
	})
}

// standing says how a node stands, and whether that is somebody's wish.
func standing(n node) string {
	if n.Drained {
		return string(n.State) + ", drained until millrace node undrain " + n.ID
	}
	return string(n.State)
}

type nodeDrainCmd struct {
	ID   string `arg:"" help:"ID of the node."`
	Wait bool   `help:"Wait until nothing runs there any more."`
}

// Run lets a node take no more jobs and prints it.
func (c nodeDrainCmd) Run(ctx context.Context, e *env) error {
	return nodeGetCmd{c.ID}.on(ctx, e, func(eng *engine.Engine) error {
		if err := eng.Drain(ctx, c.ID); err != nil {
			return err
		}
		if !c.Wait {
			return nil
		}
		err := eng.AwaitIdle(ctx, c.ID)
		if errors.Is(err, errInterrupted) {
			err = fmt.Errorf("%w; node %s is drained, and its jobs run on", errInterrupted, c.ID)
		}
		return err
	})
}

type nodeUndrainCmd nodeGetCmd

// Run lets a node take jobs again and prints it.
func (c nodeUndrainCmd) Run(ctx context.Context, e *env) error {
	return nodeGetCmd(c).on(ctx, e, func(eng *engine.Engine) error { return eng.Undrain(ctx, c.ID) })
}
