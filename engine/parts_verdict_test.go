package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A node loses its lease before it has started its part, and there is no owner, so no
// verdict either. It is the same process, and it has its part.
func TestPartsWithoutAVerdict(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := &fleet{T: t, srv: srv, slots: 2, nodes: map[string]*life{}, redriven: map[string]time.Time{}, owners: true}
		f.crew("a", "b")
		time.Sleep(2 * time.Second)
		f.fill("b", 10*time.Second)
		id := f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{})
		l := f.nodes["b"]
		back := f.cutOff(l, l.p.link.Down, l.p.link.Up)
		time.Sleep(3 * lease)
		back()
		time.Sleep(time.Minute)
		if n := len(f.of(id, "b")); n != 1 {
			t.Errorf("b started its part %d times, want once", n)
		}
		serve(t, f.client.Engine)
		info := f.await(id, time.Minute)
		f.check(info)
		f.told(info, "succeeded", "a succeeded, b succeeded")
	})
}

// There is a verdict on a node that had not started its part, and the owner stands still
// before it can rule on the part. The node's next process finds that the part is lost.
func TestPartsLostBeforeTheOwnerRules(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := &fleet{T: t, srv: srv, slots: 2, nodes: map[string]*life{}, redriven: map[string]time.Time{}, owners: true}
		f.crew("a", "b")
		p := start(f, srv, "o", func(w natstest.Write) natstest.Fault {
			if w.Header.Get("Mr-State") == "lost" {
				return natstest.Hold
			}
			return natstest.Pass
		}, ">")
		serve(t, p.Engine)
		time.Sleep(10 * time.Second)
		f.fill("b", time.Minute)
		id := f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{})
		f.kill("b")
		time.Sleep(4 * lease)
		f.begin("b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.client.Wait(ctx, id); err != nil {
			t.Error(err)
		}
		p.link.Release()
		info := f.await(id, time.Minute)
		f.check(info)
		f.told(info, "failed", "a succeeded, b lost")
	})
}

// Whatever was dispatched just before its node died is ruled on with the verdict, and
// not only when the owner reads its record: a part is lost, a shard runs elsewhere.
func TestPartsRuledAtTheVerdict(t *testing.T) {
	for _, shards := range []bool{false, true} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("shards %t, busy %t", shards, busy), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					f := newFleet(t, srv, "a", "b")
					time.Sleep(time.Minute)
					if busy {
						f.fill("b", time.Minute)
					}
					time.Sleep(lease / 3)
					var id string
					if shards {
						id = f.shards(push{Work: 5 * time.Second}, engine.ShardOptions{Shards: 2})
					} else {
						id = f.broadcast(push{Work: 5 * time.Second}, engine.BroadcastOptions{})
					}
					time.Sleep(500 * time.Millisecond)
					f.kill("b")
					verdict := f.verdict("b")
					info := f.await(id, time.Minute)
					ruled := *info.Finished
					if shards {
						f.checkShards(info)
						ruled = f.of(id, "1")[len(f.of(id, "1"))-1].began
					} else {
						f.told(info, "failed", "a succeeded, b lost")
					}
					if took := ruled.Sub(verdict); took > time.Second {
						t.Errorf("it was ruled on %v after the verdict", took)
					}
				})
			})
		}
	}
}

// verdict waits for the verdict on a node, and returns when there was one.
func (f *fleet) verdict(node string) time.Time {
	f.Helper()
	verdicts, err := jetStream(f, f.client.nc).KeyValue(f.Context(), "mr_default_nodes")
	if err != nil {
		f.Fatal(err)
	}
	for range 1000 {
		if _, err := verdicts.Get(f.Context(), "dead."+node); err == nil {
			return time.Now()
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.Fatalf("there is no verdict on %s", node)
	return time.Time{}
}
