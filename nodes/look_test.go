package nodes_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
)

// Who is asked to look into its mailbox does, and who is not there is told of.
func TestLook(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		var looks atomic.Int64
		if _, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1", Look: func() { looks.Add(1) }}); err != nil {
			t.Fatal(err)
		}
		join(t, srv, "n2") // it has no mailbox
		asker := nodes.NewAsker(pub, ns)
		for _, node := range []string{"n1", "n2", "n1"} {
			if err := asker.Look(t.Context(), node); err != nil {
				t.Error(err)
			}
		}
		if n := looks.Load(); n != 2 {
			t.Errorf("n1 was asked to look %d times, want 2", n)
		}
		for _, node := range []string{"n3", "no.node"} {
			if err := asker.Look(t.Context(), node); err == nil || !strings.HasPrefix(err.Error(), "nodes: tell "+node+" to look") {
				t.Errorf("%s: %v", node, err)
			}
		}
	})
}

// A node is registered from its first beat until that goes or a verdict covers it.
func TestIncarnation(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		asker := nodes.NewAsker(pub, ns)
		is := func(incarnation, verdict uint64) {
			t.Helper()
			got, err := asker.Incarnation(t.Context(), "n1")
			if err != nil || got != incarnation {
				t.Errorf("it is registered as %d, want %d: %v", got, incarnation, err)
			}
			if got, err := asker.Verdict(t.Context(), "n1"); err != nil || got != verdict {
				t.Errorf("the verdict is %d, want %d: %v", got, verdict, err)
			}
		}
		is(0, 0)
		p := join(t, srv, "n1")
		first := p.Incarnation()
		is(first, 0)
		p.leave()
		is(0, 0)
		p = join(t, srv, "n1")
		second := p.Incarnation()
		is(second, 0)
		revision, err := verdicts(pub).Create(t.Context(), "dead.n1", first)
		if err != nil {
			t.Fatal(err)
		}
		is(second, first)
		if _, err := verdicts(pub).Update(t.Context(), "dead.n1", second, revision, kv.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		is(0, second)
		p.crash()
		time.Sleep(gone)
		is(0, second)
		pub.Conn().Close()
		if _, err := asker.Incarnation(t.Context(), "n1"); err == nil || !strings.HasPrefix(err.Error(), "nodes: look for the beat of n1") {
			t.Errorf("without a connection: %v", err)
		}
		if _, err := asker.Verdict(t.Context(), "n1"); err == nil || !strings.HasPrefix(err.Error(), "nodes: read the verdict on n1") {
			t.Errorf("without a connection: %v", err)
		}
	})
}
