package nodes_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

const (
	ns    = streams.DefaultNamespace
	lease = 6 * time.Second
	// gone is when a key that nobody renews has surely expired.
	gone = lease + time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// open returns a publisher on nc that lasts as long as the test.
func open(t *testing.T, nc *nats.Conn) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	return pub
}

// setup makes the assets and returns a publisher of somebody who looks on.
func setup(t *testing.T, srv *server.Server) *publish.Publisher {
	t.Helper()
	pub := open(t, natstest.Connect(t, srv))
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	return pub
}

// process is a node in a process of its own, as far as NATS can tell: it has
// its own connection, through a link.
type process struct {
	*nodes.Node
	t      *testing.T
	link   *natstest.Link
	pub    *publish.Publisher
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // what Run returned, once ended is closed
}

// network is where a process connects.
func network(t *testing.T, srv *server.Server, decide func(natstest.Write) natstest.Fault) *natstest.Link {
	return natstest.NewLink(t, srv, decide, "$KV.>")
}

// join starts a node under an ID on a link of its own.
func join(t *testing.T, srv *server.Server, id string) *process {
	t.Helper()
	p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// joinOn starts a node on a link. It ends with the test.
func joinOn(t *testing.T, link *natstest.Link, opts nodes.Options) (*process, error) {
	t.Helper()
	opts.Lease, opts.Logger = lease, quiet
	p := &process{t: t, link: link, pub: open(t, link.Connect(t)), ended: make(chan struct{})}
	node, err := nodes.Join(t.Context(), p.pub, opts)
	if err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(t.Context())
	p.Node = node
	go func() {
		defer close(p.ended)
		p.err = node.Run(ctx)
	}()
	t.Cleanup(func() { p.cancel(); <-p.ended })
	return p, nil
}

// leave stops the node cleanly.
func (p *process) leave() {
	p.t.Helper()
	p.cancel()
	<-p.ended
	if p.err != nil {
		p.t.Errorf("node %s ended: %v", p.ID(), p.err)
	}
}

// crash ends the process without a word to anybody.
func (p *process) crash() {
	p.link.Down()
	p.cancel()
	<-p.ended
	p.pub.Close()
	p.pub.Conn().Close()
}

// The buckets, as whoever looks on sees them.
func beats(pub *publish.Publisher) *kv.Bucket[kv.Held] {
	return kv.Open(pub, ns.Bucket(streams.Nodes), kv.JSON[kv.Held]())
}

func verdicts(pub *publish.Publisher) *kv.Bucket[uint64] {
	return kv.Open(pub, ns.Bucket(streams.Nodes), kv.JSON[uint64]())
}

func leases(pub *publish.Publisher) *kv.Bucket[kv.Held] {
	return kv.Open(pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
}

// until waits until ok, asking again and again, for as long as the test has
// patience.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// answer listens in the place of a node and says that it is there.
func answer(nc *nats.Conn, node string) (*nats.Subscription, error) {
	sub, err := nc.Subscribe(ns.CtlSubject(node), func(msg *nats.Msg) {
		out := nats.NewMsg(msg.Reply)
		out.Header.Set("Mr-Type", "ctl/1")
		out.Data = []byte(`{"incarnation":0}`)
		_ = msg.RespondMsg(out) // whoever asked asks again
	})
	if err != nil {
		return nil, err
	}
	return sub, nc.Flush()
}
