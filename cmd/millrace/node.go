package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/nodes"
)

type nodeCmd struct {
	List nodeListCmd `cmd:"" help:"List the nodes that are there or were within the last day."`
}

type nodeListCmd struct{}

// node is a node as the command prints it.
type node struct {
	nodes.Member
	Kinds []string `json:"kinds"` // a list, also where there are none
}

var nodeColumns = []column[node]{
	{"node", func(n node) string { return n.ID }},
	{"state", func(n node) string { return string(n.State) }},
	{"role", func(n node) string { return role(n) }},
	{"slots", func(n node) string { return strconv.Itoa(n.Slots) }},
	{"kinds", func(n node) string { return strings.Join(n.Kinds, " ") }},
	{"labels", func(n node) string { return labels(n.Labels) }},
	{"incarnation", func(n node) string { return strconv.FormatUint(n.Incarnation, 10) }},
	{"started", func(n node) string { return clock(&n.Started) }},
}

// Run prints the nodes.
func (nodeListCmd) Run(ctx context.Context, e *env) error {
	eng, shut, err := e.connect(ctx, engine.Options{})
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
		found[i] = node{Member: m, Kinds: append([]string{}, m.Kinds...)}
	}
	return list(e, found, nodeColumns)
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
