package natstest

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Domains are the JetStream domains of the servers of a [Tree]. A leaf without
// one has no JetStream.
type Domains struct{ Hub, Leaf string }

// Tree is a JetStream server and a leaf node of it, each for clients of its own.
// Both listen on 127.0.0.1. Its methods are for one goroutine at a time.
type Tree struct {
	Hub, Leaf *server.Server // after a restart it is another one

	t         testing.TB
	hub, leaf server.Options
}

// StartTree runs a hub and a leaf node until the test ends, and waits until they
// are connected. It does not work in a bubble.
func StartTree(t testing.TB, d Domains) *Tree {
	t.Helper()
	tree := &Tree{t: t}
	tree.hub = server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: Port(t),
		JetStreamDomain: d.Hub, StoreDir: t.TempDir(),
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: Port(t)},
	}
	tree.leaf = server.Options{
		ServerName: "leaf", Host: "127.0.0.1", Port: Port(t),
		JetStreamDomain: d.Leaf, StoreDir: t.TempDir(),
		LeafNode: server.LeafNodeOpts{ReconnectInterval: 50 * time.Millisecond},
	}
	tree.StartHub()
	tree.StartLeaf()
	tree.Connected()
	return tree
}

// StartHub runs the hub, on the ports and the data that it had before.
func (tree *Tree) StartHub() {
	tree.t.Helper()
	tree.Hub = start(tree.t, &tree.hub)
}

// StartLeaf runs the leaf node, on the port and the data that it had before.
func (tree *Tree) StartLeaf() {
	tree.t.Helper()
	hub, err := url.Parse(fmt.Sprintf("nats-leaf://127.0.0.1:%d", tree.hub.LeafNode.Port))
	if err != nil {
		tree.t.Fatalf("natstest: start leaf node: %v", err)
	}
	tree.leaf.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{hub}}}
	if tree.leaf.JetStreamDomain == "" {
		tree.Leaf = StartWith(tree.t, &tree.leaf)
	} else {
		tree.Leaf = start(tree.t, &tree.leaf)
	}
}

// Connected waits until the leaf node is connected to its hub, and each of them
// knows who listens on the other.
func (tree *Tree) Connected() {
	tree.t.Helper()
	tree.hears(tree.Leaf, tree.Hub)
	tree.hears(tree.Hub, tree.Leaf)
}

// hears waits until a server passes messages on to another. Who listens there is
// told in order, so it knows of all who listened before.
func (tree *Tree) hears(from, to *server.Server) {
	tree.t.Helper()
	listener, speaker := Connect(tree.t, to), Connect(tree.t, from)
	defer listener.Close()
	defer speaker.Close()
	subject := nats.NewInbox()
	_, err := listener.Subscribe(subject, func(msg *nats.Msg) { _ = msg.Respond(nil) }) // fails only on a closed connection
	if err != nil {
		tree.t.Fatalf("natstest: connect leaf node: %v", err)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for {
		if _, err = speaker.Request(subject, nil, patience/10); err == nil {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			tree.t.Fatalf("natstest: connect leaf node: %s does not hear of %s after %v: %v", from.Name(), to.Name(), patience, err)
		}
	}
}
