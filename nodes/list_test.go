package nodes_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
)

func TestList(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		for _, id := range []string{"alive", "draining", "left", "crashed"} {
			p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: id, Info: nodes.Info{Kinds: []string{id}}})
			if err != nil {
				t.Fatal(err)
			}
			switch id {
			case "draining":
				err = p.SetInfo(t.Context(), func(i *nodes.Info) { i.Draining = true })
				rule(t, p.pub, id)
			case "left":
				p.leave()
			case "crashed":
				p.crash()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(gone)
		members, err := nodes.List(t.Context(), pub, ns)
		if err != nil {
			t.Fatal(err)
		}
		type short struct {
			ID    string
			State nodes.State
			There bool
			Owner bool
			Kinds []string
		}
		var got []short
		for _, m := range members {
			got = append(got, short{m.ID, m.State, m.Incarnation > 0, m.Owner, m.Kinds})
		}
		want := []short{
			{"alive", nodes.Alive, true, false, []string{"alive"}},
			{"crashed", nodes.Offline, false, false, []string{"crashed"}},
			{"draining", nodes.Draining, true, true, []string{"draining"}},
			{"left", nodes.Offline, false, false, []string{"left"}},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("nodes (-want +got):\n%s", d)
		}
	})
}

// Scripts read these names.
func TestMemberJSON(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(nodes.Member{ID: "n1", Incarnation: 7, State: nodes.Alive, Owner: true, Info: nodes.Info{Kinds: []string{"a.b"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"n1","incarnation":7,"state":"alive","owner":true,"kinds":["a.b"],"slots":0,"started":"0001-01-01T00:00:00Z"}`
	if string(data) != want {
		t.Errorf("got %s\nwant %s", data, want)
	}
}
