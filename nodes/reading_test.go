package nodes_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// What the judge reads, and how it comes by what it did not read. That a reading
// which fails or finds another stream is healed is tested with known.

// describe stores the description of a node that is not there.
func describe(t *testing.T, pub *publish.Publisher, node string) (revision uint64) {
	t.Helper()
	infos := kv.Open(pub, ns.Bucket(streams.Nodes), kv.JSON[nodes.Info]())
	revision, err := infos.Create(t.Context(), "info."+node, nodes.Info{Role: nodes.RoleWorker})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// The server delivers as much to an owner where thousands of nodes went within
// the day as where a few did.
func TestReadingDoesNotGrow(t *testing.T) {
	const lasting = 20 * lease
	delivered := func(gone int) (messages uint64) {
		natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
			pub := setup(t, srv)
			for i := range gone {
				node := fmt.Sprint("gone", i)
				if _, err := verdicts(pub).Create(t.Context(), "dead."+node, describe(t, pub, node)); err != nil {
					t.Fatal(err)
				}
			}
			join(t, srv, "n1")
			nc := natstest.Connect(t, srv)
			rule(t, open(t, nc), "boss")
			time.Sleep(lease)
			before := nc.Stats().InMsgs
			time.Sleep(lasting)
			messages = nc.Stats().InMsgs - before
		})
		return messages
	}
	few, many := delivered(3), delivered(2000)
	t.Logf("in %v: %d messages where 3 nodes went, %d where 2,000 did", lasting, few, many)
	if few < uint64(3*lasting/lease) || many > few+few/10 {
		t.Errorf("in %v, %d messages where 3 nodes went, %d where 2,000 did, want as many", lasting, few, many)
	}
}

// A node whose description was missed is judged after a reconnect of the owner,
// or within minutes.
func TestMissedDescriptionHeals(t *testing.T) {
	for _, test := range []struct {
		name string
		cut  bool
		wait time.Duration
	}{
		{"reconnect", true, 0},
		{"within minutes", false, 10 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				pub := setup(t, srv)
				link := network(t, srv, nil)
				describe(t, pub, "n1")
				need := describe(t, pub, "n2")
				rule(t, open(t, link.Connect(t)), "boss")
				judged(t, pub, "n2", need)
				need = makeAnew(t, pub, "missed", "n2")
				time.Sleep(3 * lease)
				if got := verdict(t, pub, "missed"); got != 0 {
					t.Fatalf("verdict %d: it was not missed", got)
				}
				if test.cut {
					link.Cut()
				}
				time.Sleep(test.wait)
				judged(t, pub, "missed", need)
			})
		})
	}
}

// makeAnew puts another stream in the place of the nodes bucket, in which a new
// node comes first and the newest one, as it was before, last: just what a reading
// does not notice. It returns the revision of the first.
func makeAnew(t *testing.T, pub *publish.Publisher, first, last string) (revision uint64) {
	t.Helper()
	js, err := pub.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	before := kept(t, pub).LastSeq
	if err := js.DeleteStream(t.Context(), verdicts(pub).Stream()); err != nil {
		t.Fatal(err)
	}
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	revision = describe(t, pub, first)
	other := verdicts(pub)
	for i := uint64(0); kept(t, pub).LastSeq <= before; i++ {
		if _, err := other.Create(t.Context(), fmt.Sprint("other.", i), i); err != nil {
			t.Fatal(err)
		}
	}
	describe(t, pub, last)
	return revision
}
