package doctor_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// Streams with one replica where three fit, and replicas that are not there.
func TestReplicas(t *testing.T) {
	t.Parallel()
	servers := natstest.StartCluster(t, natstest.ClusterOptions(t))
	for ns, replicas := range map[string]int{"one": 1, "three": 3} {
		eng, err := engine.Connect(t.Context(), natstest.Connect(t, servers[0]), engine.Options{Namespace: ns, Replicas: replicas, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(eng.Close)
	}
	nc := natstest.Connect(t, servers[0])
	look := func(ns string) []doctor.Finding {
		return of("replicas", examine(t, nc, doctor.Options{Namespace: streams.Namespace(ns)}))
	}
	found := look("one")
	expect(t, found, `warning replicas: streams KV_mr_one_leases, .* are kept by fewer servers than there are in the cluster: what fails`)
	for len(ill(look("three"))) > 0 && t.Context().Err() == nil { // replicas catch up
		<-time.After(20 * time.Millisecond)
	}
	servers[2].Shutdown()
	servers[2].WaitForShutdown()
	for t.Context().Err() == nil {
		if list := ill(look("three")); len(list) > 0 && strings.Contains(list[0], "wrong replicas: server s3, which keeps stream KV_mr_three_leases, is offline: start the server") {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
}

// From a leaf node the hub's namespace is looked at through its domain, and what
// a user may not do there is seen too.
func TestLeafNode(t *testing.T) {
	t.Parallel()
	tree := natstest.StartTree(t, natstest.Domains{Hub: "hub"})
	eng, err := engine.Connect(t.Context(), natstest.Connect(t, tree.Hub), engine.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	nc := natstest.Connect(t, tree.Leaf)
	expect(t, examine(t, nc, doctor.Options{Domain: "hub", Role: "serve"}), `wrong owner: no node is the owner`)
	expect(t, examine(t, nc, doctor.Options{}), `wrong jetstream: nats://\S+ has no JetStream: start nats-server with -js, or, on a leaf node, name the domain`)
	expect(t, examine(t, nc, doctor.Options{Domain: "elsewhere"}), `wrong jetstream: there is no JetStream domain elsewhere: set the domain`)
}
