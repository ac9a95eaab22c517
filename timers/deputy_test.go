package timers_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// A deputy is owner while nobody serves, and gives the lease to whoever does.
func TestDeputy(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		worker := depute(t, network(t, srv, nil), "w")
		if took := awaitOwner(t, worker); took > lease/6+time.Second {
			t.Errorf("alone, the deputy was owner after %v", took)
		}
		time.Sleep(10 * lease)
		for range 3 {
			link := network(t, srv, nil)
			leave := serve(t, link, "s")
			first := stand(t, link, "s")
			if took := awaitOwner(t, first); took > lease/3+100*time.Millisecond {
				t.Errorf("the node that serves was owner after %v", took)
			}
			time.Sleep(10 * lease)
			if leads, _ := worker.leads(); leads {
				t.Fatal("there are two owners")
			}
			first.stop()
			leave()
			if took := awaitOwner(t, worker); took > lease {
				t.Errorf("the deputy was owner again after %v", took)
			}
		}
		_, reigns := worker.leads()
		for i := range reigns[1:] {
			if reigns[i+1] <= reigns[i] {
				t.Errorf("epochs are %v", reigns)
			}
		}
	})
}

// A deputy leaves the key to a node that serves, also while that does not take
// it, and takes it when that node has crashed.
func TestDeputyAfterCrash(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		link := network(t, srv, nil)
		leave := serve(t, link, "s")
		worker := depute(t, network(t, srv, nil), "w")
		time.Sleep(10 * lease)
		if _, reigns := worker.leads(); len(reigns) > 0 {
			t.Fatal("the deputy was owner while a node served")
		}
		first := stand(t, link, "s")
		awaitOwner(t, first)
		time.Sleep(lease)
		link.Down()
		if took := awaitOwner(t, worker); took < lease/2 || took > lease*3/2+2*time.Second {
			t.Errorf("the deputy was owner %v after the crash", took)
		}
		leave()
	})
}

// A beat that a killed server brought back, and never ends, keeps no deputy from
// standing.
func TestDeputyStuckBeat(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		put := func(key string, value any) {
			t.Helper()
			data, err := json.Marshal(value)
			if err == nil {
				_, err = pub.Publish(t.Context(), &nats.Msg{Subject: "$KV." + ns.Bucket(streams.Nodes) + "." + key, Data: data})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		put("info.s", nodes.Info{Role: nodes.RoleServe})
		put("beat.s", map[string]any{"holder": "s", "token": "t", "epoch": 1})
		worker := depute(t, network(t, srv, nil), "w")
		if took := awaitOwner(t, worker); took < 2*lease || took > 3*lease {
			t.Errorf("the deputy was owner after %v", took)
		}
	})
}

// However many candidates there are, they cost the server no consumer, and one
// of them is owner as soon as the one before has stopped.
func TestManyCandidates(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		first := stand(t, network(t, srv, nil), "first")
		awaitOwner(t, first)
		var rest []*candidate
		for i := range 20 {
			rest = append(rest, stand(t, network(t, srv, nil), fmt.Sprint("s", i)))
			rest = append(rest, depute(t, network(t, srv, nil), fmt.Sprint("w", i)))
		}
		time.Sleep(10 * lease)
		js, err := jetstream.New(pub.Conn())
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), "KV_"+ns.Bucket(streams.Leases))
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.Consumers; n != 0 {
			t.Errorf("there are %d consumers", n)
		}
		start := time.Now()
		first.stop()
		owners := func() (n int) {
			for _, c := range rest {
				if leads, _ := c.leads(); leads {
					n++
				}
			}
			return n
		}
		until(t, "there is another owner", func() bool { return owners() > 0 })
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("handed over after %v", took)
		}
		time.Sleep(10 * lease)
		if n := owners(); n != 1 {
			t.Errorf("there are %d owners", n)
		}
	})
}
