package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/nodes"
)

type nodeCmd struct {
	List nodeListCmd `cmd:"" help:"List the nodes that are there or were within the last day."`
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
	Slots       int               `json:"slots"`
	Labels      map[string]string `json:"labels"`
	Build       string            `json:"build"`
	Draining    bool              `json:"draining"`
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
	{"started", func(n node) string { return clock(&n.Started) }},
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
		Kinds: append([]string{}, m.Kinds...), Queues: append([]string{}, m.Queues...),
		Slots: m.Slots, Labels: map[string]string{}, Build: m.Build, Draining: m.Draining,
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

func role(n node) string {
	if n.Owner {
		return n.Role + ", owner"
	}
	return n.Role
}

func labels(set map[string]string) string {
	var all []string
	for k, v := range set {
		all = append(all, fmt.Sprintf("%s=%s", k, v))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
