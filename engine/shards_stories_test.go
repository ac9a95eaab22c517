package engine_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

const lease = 6 * time.Second // on one server

// checkShards compares a sharded job that has succeeded with what the handlers did:
// one attempt of each shard is accepted, it is the last one that started, and the
// job's result is theirs, in order. Two live owners are found when they start.
func (f *fleet) checkShards(info engine.BroadcastInfo) {
	f.Helper()
	var results []json.RawMessage
	if err := json.Unmarshal(info.Result, &results); err != nil || len(results) != len(info.Parts) || info.State != "succeeded" {
		f.Errorf("%s is %s with the results %s of %d shards: %v; %s", info.ID, info.State, info.Result, len(info.Parts), err, tellParts(info))
		return
	}
	for i, p := range info.Parts {
		runs := f.of(info.ID, fmt.Sprint(i))
		f.checkRecord(info, p, runs)
		if *p.Shard != i || string(p.Result) != string(results[i]) {
			f.Errorf("%s: shard %d has the result %s, and the job has %s", info.ID, *p.Shard, p.Result, results[i])
		}
		for _, r := range runs {
			if r.Shard == nil || r.Shard.Index != i || r.Shard.Total != len(info.Parts) {
				f.Errorf("%s: shard %d was started as %+v", info.ID, i, r.Shard)
			}
		}
		last := p.Attempts[len(p.Attempts)-1]
		if len(runs) == 0 || last.Outcome != "succeeded" || runs[len(runs)-1].Attempt != last.Number {
			f.Errorf("%s: the last of the %d runs of shard %d is not the one that was accepted: %+v", info.ID, len(runs), i, p.Attempts)
		}
	}
}

// starts returns how often each shard of a job was started, and where: 0 a, 1 b c.
func (f *fleet) starts(info engine.BroadcastInfo) string {
	var list []string
	for i := range info.Parts {
		text := fmt.Sprint(i)
		for _, r := range f.of(info.ID, text) {
			text += " " + r.life.node
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// tick submits a run of a job in pieces.
func (f *fleet) tick(n, shards int, work time.Duration) string {
	return f.shards(push{Work: work}, engine.ShardOptions{ID: fmt.Sprintf("tick-%d", n), Shards: shards, MaxAttempts: 20})
}

// D1: the other node takes the shard of one that died, and dies in it; the first one is
// there again and gets it. Nobody cleans up, and the runs after that are as any.
func TestShardsGoThereAndBack(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "wA", "wB")
		began := time.Now()
		until := func(at time.Duration) { time.Sleep(time.Until(began.Add(at))) }
		first := f.tick(1, 2, time.Minute)
		until(10 * time.Second)
		if info, _ := f.client.GetBroadcast(t.Context(), first); f.starts(info) != "0 wA, 1 wB" {
			t.Fatalf("the shards were started on %s", f.starts(info))
		}
		f.kill("wB")
		until(20 * time.Second)
		f.begin("wB")
		until(40 * time.Second)
		info, err := f.client.GetBroadcast(t.Context(), first)
		if err != nil || f.starts(info) != "0 wA, 1 wB wA" {
			t.Fatalf("the shards were started on %s, %v; want shard 1 on wA since wB died", f.starts(info), err)
		}
		f.kill("wA")
		died := time.Now()
		until(85 * time.Second)
		f.begin("wA")
		for n := 2; n <= 4; n++ {
			until(time.Duration(n-1) * 2 * time.Minute)
			f.tick(n, 2, time.Minute)
		}
		info = f.await(first, 3*time.Minute)
		f.checkShards(info)
		if runs := f.of(first, "1"); len(runs) != 3 || runs[2].life.node != "wB" || runs[2].began.Sub(died) > 2*lease {
			t.Errorf("the shards were started on %s; want shard 1 on wB within %v of the death of wA", f.starts(info), 2*lease)
		}
		for n := 2; n <= 4; n++ {
			info := f.await(fmt.Sprintf("site.tick-%d", n), 3*time.Minute)
			f.checkShards(info)
			if got := f.starts(info); got != "0 wA, 1 wB" && got != "0 wB, 1 wA" {
				t.Errorf("tick %d was started on %s, want each shard once, on one node each", n, got)
			}
		}
	})
}

// D3: all nodes die at once, and come back one after the other, in either order, or one
// of them never.
func TestShardsWithoutNodes(t *testing.T) {
	for name, back := range map[string][]string{"a first": {"a", "b"}, "b first": {"b", "a"}, "only b": {"b"}, "others": {"c", "d"}} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				f := newFleet(t, srv, "a", "b")
				id := f.tick(1, 2, 30*time.Second)
				time.Sleep(5 * time.Second)
				f.kill("a")
				f.kill("b")
				for _, node := range back {
					time.Sleep(20 * time.Second)
					f.begin(node)
				}
				info := f.await(id, 2*time.Minute)
				f.checkShards(info)
				next := f.await(f.tick(2, 2, time.Second), time.Minute)
				f.checkShards(next)
				if n := len(f.startedOn(next.ID)); n != 2 {
					t.Errorf("the next run was started on %s", f.starts(next))
				}
			})
		})
	}
}

// X9: a node dies just before the job is submitted, when nobody knows yet, and another
// one while it runs. All shards are processed, in the number that was meant.
func TestShardsOfADeadNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "w1", "w2", "w3")
		f.kill("w2")
		id := f.tick(1, 6, 20*time.Second)
		time.Sleep(15 * time.Second)
		f.begin("w2")
		time.Sleep(3 * time.Second)
		f.kill("w3")
		info := f.await(id, 3*time.Minute)
		f.checkShards(info)
		for i := range 6 {
			for n, r := range f.of(id, fmt.Sprint(i)) {
				if r.life.node != "w3" && n > 0 && f.of(id, fmt.Sprint(i))[n-1].life.node != "w3" {
					t.Errorf("shard %d was started again although its node lived: %s", i, f.starts(info))
				}
			}
		}
	})
}

// A node that drains gives away what it has not started, and keeps what it runs.
func TestShardsWhenANodeDrains(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b")
		f.fill("b", time.Minute)
		waits := f.tick(1, 4, 10*time.Second)
		time.Sleep(2 * time.Second)
		drained := time.Now()
		if err := f.client.Drain(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		info := f.await(waits, 40*time.Second)
		f.checkShards(info)
		if got := f.startedOn(waits); !slices.Equal(got, []string{"a", "a", "a", "a"}) {
			t.Errorf("the shards were started on %v after %v", got, time.Since(drained))
		}
	})
}

// While no node has the labels, the shards wait for one.
func TestShardsWaitForANode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a")
		id := f.shards(push{Work: time.Second}, engine.ShardOptions{Shards: 3, Selector: map[string]string{"gpu": "yes"}})
		time.Sleep(time.Minute)
		if n := len(f.startedOn(id)); n != 0 {
			t.Errorf("%d shards were started on a node without the label", n)
		}
		f.begin("g", "gpu")
		info := f.await(id, 40*time.Second)
		f.checkShards(info)
		if got := f.startedOn(id); !slices.Equal(got, []string{"g", "g", "g"}) {
			t.Errorf("the shards were started on %v", got)
		}
	})
}

// Shards stay where they were in the run before, as long as that is even.
func TestShardsStayFromRunToRun(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c")
		run := func(n int) string { return f.starts(f.await(f.tick(n, 6, time.Second), time.Minute)) }
		first := run(1)
		if again := run(2); again != first {
			t.Errorf("the shards were on %s, and then on %s", first, again)
		}
		f.halt("b")
		time.Sleep(time.Second)
		for i, now := range strings.Split(run(3), ", ") {
			if before := strings.Split(first, ", ")[i]; !strings.HasSuffix(before, "b") && now != before {
				t.Errorf("b went, and shard %s moved: %s", before, now)
			}
		}
	})
}

// A shard that fails is tried again by itself; one that fails for good makes the job
// fail, which says which.
func TestShardsFailByThemselves(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b")
		id := f.shards(push{Work: time.Second, Fails: map[string]int{"1": 1, "2": 9}}, engine.ShardOptions{Shards: 4, MaxAttempts: 2})
		info := f.await(id, time.Minute)
		f.told(info, "failed", "0 succeeded, 1 succeeded, 2 failed, 3 succeeded")
		if got := len(f.startedOn(id)); got != 6 || !strings.Contains(info.Error.Message, "shard 2") {
			t.Errorf("%d starts, and the job says %q", got, info.Error.Message)
		}
	})
}

// D4: three nodes, six shards, a run every 30 s, and twenty rounds in which a node is
// killed, stopped, frozen or started. Then five quiet runs, each shard once.
func TestShardsInChaos(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "w1", "w2", "w3")
		rng := rand.New(rand.NewPCG(4, 0))
		var ids []string
		for n := range 20 {
			ids = append(ids, f.tick(n, 6, 5*time.Second))
			time.Sleep(time.Duration(rng.IntN(int(30 * time.Second))))
			f.harm(rng, fmt.Sprint("w", 1+rng.IntN(3)), 15*time.Second)
			time.Sleep(time.Duration(rng.IntN(int(10 * time.Second))))
		}
		for _, node := range []string{"w1", "w2", "w3"} {
			f.heal(node)
		}
		time.Sleep(30 * time.Second)
		for _, id := range ids {
			f.checkShards(f.await(id, 2*time.Minute))
		}
		for n := range 5 {
			info := f.await(f.tick(100+n, 6, 5*time.Second), 30*time.Second)
			f.checkShards(info)
			if got := len(f.startedOn(info.ID)); got != 6 {
				t.Errorf("quiet run %d was started on %s", n, f.starts(info))
			}
		}
	})
}

// harm does something to a node, or starts it if it is not there.
func (f *fleet) harm(rng *rand.Rand, node string, most time.Duration) {
	f.mu.Lock()
	l := f.nodes[node]
	f.mu.Unlock()
	if l == nil {
		f.begin(node)
		return
	}
	away := time.Duration(rng.IntN(int(most)))
	switch rng.IntN(6) {
	case 0:
		f.halt(node)
	case 1:
		back := f.cutOff(l, l.p.link.Freeze, l.p.link.Thaw)
		time.Sleep(away)
		back()
	case 2:
		back := f.cutOff(l, l.p.link.Down, l.p.link.Up)
		time.Sleep(away)
		back()
	case 3:
		l.p.link.Cut()
	default:
		f.kill(node)
		if rng.IntN(2) == 0 {
			time.Sleep(away)
			f.begin(node)
		}
	}
}

// heal makes sure that a node is there and hears everybody.
func (f *fleet) heal(node string) {
	f.mu.Lock()
	l := f.nodes[node]
	f.mu.Unlock()
	if l == nil {
		f.begin(node)
		return
	}
	l.p.link.Thaw()
	l.p.link.Up()
}
