package nodes_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
)

// Only a node with the role serve counts, and only while it is registered.
func TestServes(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		serves := nodes.NewServes(pub, ns, lease)
		expect := func(when string, want bool) {
			t.Helper()
			if got, err := serves.Any(t.Context()); got != want || err != nil {
				t.Errorf("%s: %v, %v; want %v", when, got, err, want)
			}
		}
		expect("without nodes", false)
		join(t, srv, "w")
		expect("with a worker", false)
		as := func(id, role string) *process {
			t.Helper()
			p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: id, Info: nodes.Info{Role: role}})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		first := as("a", nodes.RoleServe)
		expect("with one that serves", true)
		as("b", nodes.RoleServe)
		first.leave()
		expect("when another one serves", true)
		as("a", nodes.RoleWorker)
		expect("when the first came back as a worker", true)
		time.Sleep(10 * lease)
		expect("after some time", true)
		if _, err := verdicts(pub).Create(t.Context(), "dead.b", at(t, pub, "b")); err != nil {
			t.Fatal(err)
		}
		expect("when a verdict covers it", false)
		third := as("c", nodes.RoleServe)
		expect("with a third", true)
		third.crash()
		expect("just after the crash", true)
		time.Sleep(gone)
		expect("later", false)
		pub.Conn().Close()
		if _, err := serves.Any(t.Context()); err == nil {
			t.Error("no error on a closed connection")
		}
	})
}
