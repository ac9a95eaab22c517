package publish_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
)

// Buckets, streams and requests of the hub are reached through a leaf node, and
// from the hub itself, whatever the publisher calls its domain there.
func TestDomain(t *testing.T) {
	t.Parallel()
	tree := natstest.StartTree(t, natstest.Domains{Hub: "hub", Leaf: "leaf"})
	for _, p := range []*publish.Publisher{
		newPublisher(t, natstest.Connect(t, tree.Hub)),
		newPublisher(t, natstest.Connect(t, tree.Hub), publish.Options{Domain: "hub"}),
		newPublisher(t, natstest.Connect(t, tree.Leaf), publish.Options{Domain: "hub"}),
	} {
		js, err := p.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "KV_b", Subjects: []string{"$KV.b.>"}})
		if err != nil {
			t.Fatal(err)
		}
		ack, err := p.Publish(t.Context(), &nats.Msg{Subject: "$KV.b.key"})
		if err != nil || ack.Stream != "KV_b" {
			t.Fatalf("got %+v, %v, want that it is stored in KV_b", ack, err)
		}
		if msg, err := stream.GetMsg(t.Context(), ack.Sequence); err != nil || msg.Subject != "$KV.b.key" {
			t.Errorf("got %+v, %v, want it under its own subject", msg, err)
		}
		msg, err := p.Request(t.Context(), p.API("STREAM.INFO.KV_b"), nil)
		if err != nil || !strings.Contains(string(msg.Data), `"domain":"hub"`) {
			t.Errorf("got %v, %v, want the stream of domain hub", msg, err)
		}
	}
}

func TestCheckDomain(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"", "hub", "EU-west_1"} {
		if err := publish.CheckDomain(domain); err != nil {
			t.Error(err)
		}
	}
	for _, domain := range []string{"a.b", "a b", "*", ">", "a\n"} {
		if err := publish.CheckDomain(domain); err == nil || !strings.Contains(err.Error(), "is not one word") {
			t.Errorf("%q: got %v, want that it is not one word", domain, err)
		}
	}
}
