package engine_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// B5: the owner dies in the middle, or every process that could be it, or the one that
// submitted. Nothing runs again, and the broadcast ends.
func TestPartsWhenTheOwnerDies(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := &fleet{T: t, srv: srv, slots: 10, nodes: map[string]*life{}, redriven: map[string]time.Time{}, owners: true}
		f.open("o1", "a", "b", "c")
		servers := []*life{}
		for _, id := range []string{"s1", "s2"} {
			l := &life{node: id, p: start(t, srv, id, nil)}
			l.stop = func() error { return nil }
			serve(t, l.p.Engine)
			servers = append(servers, l)
			time.Sleep(time.Second)
		}
		f.halt("o1")
		time.Sleep(10 * time.Second)
		all := f.broadcast(push{Work: 20 * time.Second}, engine.BroadcastOptions{})
		rolling := f.broadcast(push{Work: 10 * time.Second}, engine.BroadcastOptions{MaxParallel: 1})
		time.Sleep(5 * time.Second)
		servers[0].p.link.Down()
		time.Sleep(10 * time.Second)
		servers[1].p.link.Down() // now a worker has to
		for _, id := range []string{all, rolling} {
			info := f.await(id, 3*time.Minute)
			f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
			f.check(info)
			if got := f.startedOn(id); !slices.Equal(got, []string{"a", "b", "c"}) {
				t.Errorf("parts were started on %v, want once on each node", got)
			}
		}
	})
}

// So many nodes have their parts at a time, in the order of their IDs. After a failure
// no further one gets it; what runs ends as it may.
func TestPartsRolls(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c", "d", "e")
		well := f.broadcast(push{Work: 10 * time.Second}, engine.BroadcastOptions{MaxParallel: 2})
		stops := f.broadcast(push{Work: 10 * time.Second, Fails: map[string]int{"b": 1}}, engine.BroadcastOptions{MaxParallel: 1, MaxAttempts: 1})
		retries := f.broadcast(push{Work: 5 * time.Second, Fails: map[string]int{"b": 1}}, engine.BroadcastOptions{MaxParallel: 2, MaxAttempts: 2})
		dies := f.broadcast(push{Work: 10 * time.Second}, engine.BroadcastOptions{MaxParallel: 1, Done: engine.DoneQuorum})
		time.Sleep(5 * time.Second)
		f.kill("e")
		for id, want := range map[string][2]string{
			well:    {"failed", "a succeeded, b succeeded, c succeeded, d succeeded, e lost"},
			stops:   {"failed", "a succeeded, b failed, c cancelled, d cancelled, e cancelled"},
			retries: {"failed", "a succeeded, b succeeded, c succeeded, d succeeded, e lost"},
			dies:    {"succeeded", "a succeeded, b succeeded, c succeeded, d succeeded, e lost"},
		} {
			info := f.await(id, 3*time.Minute)
			f.told(info, want[0], want[1])
			f.check(info)
			if most := f.mostAtOnce(id); most > info.Children.MaxParallel {
				t.Errorf("%d parts ran at a time, and %d may", most, info.Children.MaxParallel)
			}
		}
		if got := f.startedOn(stops); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("after a failure it was started on %v", got)
		}
	})
}

// mostAtOnce returns how many handlers of a job ran at the same time.
func (f *fleet) mostAtOnce(id string) (most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.runs {
		n := 0
		for _, other := range f.runs {
			if r.Parent == id && other.Parent == id && !other.began.After(r.began) && (other.ended.IsZero() || other.ended.After(r.began)) && !other.gone() {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// As soon as one has succeeded, the others are told to end.
func TestPartsOfAnyCancelTheRest(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c")
		f.fill("c", time.Minute)
		id := f.broadcast(push{Work: 10 * time.Second, Fails: map[string]int{"a": 100}}, engine.BroadcastOptions{Done: engine.DoneAny})
		info := f.await(id, 30*time.Second)
		f.told(info, "succeeded", "a cancelled, b succeeded, c cancelled")
		f.check(info)
		time.Sleep(3 * time.Minute)
		if got := f.of(id, "c"); len(got) != 0 {
			t.Errorf("c ran its part after the end")
		}
	})
}

// Whoever cancels a broadcast cancels its parts: those that run, wait for their next
// attempt, wait for a slot, and were not made yet.
func TestPartsCancelled(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c", "d")
		f.fill("c", time.Minute)
		id := f.broadcast(push{Work: 10 * time.Second, Fails: map[string]int{"b": 1}}, engine.BroadcastOptions{
			MaxParallel: 3, Retry: &engine.Retry{Delay: time.Hour, Jitter: -1},
		})
		time.Sleep(12 * time.Second)
		again := f.broadcast(push{Work: time.Hour}, engine.BroadcastOptions{})
		time.Sleep(5 * time.Second)
		for _, job := range []string{id, again} {
			if _, err := f.client.Cancel(t.Context(), job); err != nil {
				t.Fatal(err)
			}
		}
		info := f.await(id, 5*time.Second)
		f.told(info, "cancelled", "a succeeded, b cancelled, c cancelled, d cancelled")
		f.check(info)
		info = f.await(again, 5*time.Second)
		f.told(info, "cancelled", "a cancelled, b cancelled, c cancelled, d cancelled")
		f.check(info)
	})
}

// A redrive runs again what did not succeed, on its own nodes, which were there at the
// dispatch: not who came since.
func TestPartsRedriven(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c", "d")
		id := f.broadcast(push{Work: 5 * time.Second, Fails: map[string]int{"b": 1}}, engine.BroadcastOptions{MaxAttempts: 1})
		time.Sleep(time.Second)
		f.kill("c")
		info := f.await(id, time.Minute)
		f.told(info, "failed", "a succeeded, b failed, c lost, d succeeded")
		f.check(info)
		f.begin("c")
		f.begin("x")
		time.Sleep(10 * time.Second)
		f.redriven[id] = time.Now()
		if _, err := f.client.Retry(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		info = f.await(id, time.Minute)
		f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded, d succeeded")
		f.check(info)
		if got := f.startedOn(id); !slices.Equal(got, []string{"a", "b", "b", "c", "c", "d"}) {
			t.Errorf("parts were started on %v, want once more on b and c", got)
		}
		if _, err := f.client.Retry(t.Context(), engine.PartID(id, "b")); err == nil {
			t.Error("a part was retried by itself although the broadcast has ended")
		}
	})
}

// A redrive that meets a node which is gone loses its part again, and only that.
func TestPartsRedrivenWithoutTheNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b")
		id := f.broadcast(push{Work: 5 * time.Second}, engine.BroadcastOptions{})
		time.Sleep(time.Second)
		f.kill("b")
		f.told(f.await(id, time.Minute), "failed", "a succeeded, b lost")
		f.redriven[id] = time.Now()
		if _, err := f.client.Retry(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		info := f.await(id, time.Minute)
		f.told(info, "failed", "a succeeded, b lost")
		f.check(info)
	})
}

// A node never hears of its part: the ring is lost, and the connection stays. The
// owner asks it to look.
func TestPartsWhenTheRingIsLost(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c")
		js := jetStream(t, f.client.nc)
		mail, err := js.Stream(t.Context(), "mr_default_mail")
		if err != nil {
			t.Fatal(err)
		}
		quiet := mail.CachedInfo().Config
		quiet.RePublish = nil
		if _, err := js.UpdateStream(t.Context(), quiet); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		id := f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{})
		info := f.await(id, time.Minute)
		f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
		f.check(info)
		if took := info.Finished.Sub(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Nothing is left of a broadcast when its time is over, or when somebody deletes it.
func TestPartsGoWithTheirBroadcast(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c")
		limitQueue(t, f.client, "site", engine.QueueLimits{Succeeded: new(spec.Duration(10 * time.Minute))})
		time.Sleep(time.Minute)
		kept := f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{})
		deleted := f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{})
		f.await(kept, time.Minute)
		f.await(deleted, time.Minute)
		if err := f.client.Delete(t.Context(), engine.PartID(deleted, "a")); err == nil {
			t.Error("a part was deleted by itself")
		}
		if err := f.client.Delete(t.Context(), deleted); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Minute)
		for _, stream := range []string{"KV_mr_default_jobs", "mr_default_mail", "mr_default_timers", "mr_default_work"} {
			if n := streamInfo(t, f.client.nc, stream).State.Msgs; n != 0 {
				t.Errorf("%d messages are left in %s", n, stream)
			}
		}
	})
}

// Many broadcasts at once, and many at a node that has one slot.
func TestPartsOfMany(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := &fleet{T: t, srv: srv, slots: 1, nodes: map[string]*life{}, redriven: map[string]time.Time{}}
		f.open("a", "b", "c")
		var ids []string
		for range 50 {
			ids = append(ids, f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{}))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for _, id := range ids {
			if _, err := f.client.Wait(ctx, id); err != nil {
				t.Fatal(err)
			}
			info := f.await(id, time.Second)
			f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
			f.check(info)
		}
	})
}
