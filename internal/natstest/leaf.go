package natstest

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT,
		JetStreamDomain: d.Hub, StoreDir: t.TempDir(),
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT},
	}
	tree.leaf = server.Options{
		ServerName: "leaf", Host: "127.0.0.1", Port: server.RANDOM_PORT,
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
	tree.Hub = start(tree.t, &tree.hub) // which notes the ports there
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
		tree.Leaf = startPlain(tree.t, &tree.leaf)
	} else {
		tree.Leaf = start(tree.t, &tree.leaf)
	}
}

// Connected waits until the leaf node is connected to its hub.
func (tree *Tree) Connected() {
	tree.t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for tree.Leaf.NumLeafNodes() == 0 || tree.Hub.NumLeafNodes() == 0 {
		select {
		case <-look.C:
		case <-deadline:
			tree.t.Fatalf("natstest: connect leaf node: not connected to its hub after %v", patience)
		}
	}
}
