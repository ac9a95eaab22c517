package streams_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// inDomain returns a publisher for a JetStream domain.
func inDomain(t testing.TB, nc *nats.Conn, domain string) *publish.Publisher {
	t.Helper()
	pub := must(publish.New(nc, publish.Options{Domain: domain}))(t)
	t.Cleanup(pub.Close)
	return pub
}

// Who asks a leaf node in vain is told what to do.
func TestEnsureOnLeaf(t *testing.T) {
	t.Parallel()
	tree := natstest.StartTree(t, natstest.Domains{Hub: "hub"})
	for domain, words := range map[string][]string{
		"":     {"has no JetStream", "name the domain of its hub with --js-domain"},
		"elba": {"no such JetStream domain", "does not reach elba", "check --js-domain"},
	} {
		_, err := streams.Ensure(t.Context(), ns, inDomain(t, connect(t, tree.Leaf), domain), streams.Options{Logger: quiet})
		oneLine(t, err, words...)
	}
	for _, domain := range []string{"", "hub"} {
		pub := inDomain(t, connect(t, tree.Hub), domain)
		if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Logger: quiet}); err != nil {
			t.Errorf("on the hub, in domain %q: %v", domain, err)
		}
	}
}

// A namespace cannot be made in a second domain, where it would get half of the
// first one's messages; after the first is deleted it can.
func TestEnsureTaken(t *testing.T) {
	defer streams.ProbeTime(time.Minute)() // which all tests share, so this one is not parallel
	tree := natstest.StartTree(t, natstest.Domains{Hub: "hub", Leaf: "leaf"})
	leaf := inDomain(t, connect(t, tree.Leaf), "")
	ensure(t, connect(t, tree.Hub), streams.Options{})
	for { // until the leaf has heard of it
		_, err := leaf.Publish(t.Context(), &nats.Msg{Subject: "mr.default.dead.a.b"})
		if err == nil {
			break
		}
		if !errors.Is(err, jetstream.ErrNoStreamResponse) {
			t.Fatal(err)
		}
	}
	_, err := streams.Ensure(t.Context(), ns, leaf, streams.Options{Logger: quiet})
	oneLine(t, err, "create namespace default: another JetStream that can be reached from here has it", "--js-domain", "--namespace")
	if _, err := streams.Ensure(t.Context(), ns+"2", leaf, streams.Options{Logger: quiet}); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	for name := range made(t, tree.Hub) {
		if err := open(t, connect(t, tree.Hub)).DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := streams.Ensure(t.Context(), ns, leaf, streams.Options{Logger: quiet}); err != nil {
		t.Errorf("after the other was deleted: %v", err)
	}
}

// Who only listens does not have a namespace.
func TestEnsureHeard(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	if _, err := connect(t, srv).Subscribe(">", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	ensure(t, connect(t, srv), streams.Options{})
}
