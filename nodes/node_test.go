package nodes_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
)

// A node is there from Join on, and is gone when it has left.
func TestJoinAndLeave(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		beat, err := beats(pub).Get(t.Context(), "beat.n1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, incarnation := p.Lease()
		if incarnation != kv.EpochOf(beat) || p.Incarnation() != incarnation || ctx.Err() != nil || !p.Ready() {
			t.Errorf("incarnation %d with %v, ready is %v; want %d without error", incarnation, ctx.Err(), p.Ready(), kv.EpochOf(beat))
		}

		time.Sleep(time.Hour)
		if _, now := p.Lease(); ctx.Err() != nil || now != incarnation {
			t.Errorf("an hour later the incarnation is %d with %v, want %d", now, ctx.Err(), incarnation)
		}
		start := time.Now()
		p.leave()
		if _, err := beats(pub).Get(t.Context(), "beat.n1"); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("after leaving the key reads %v", err)
		}
		if cause := context.Cause(ctx); !errors.Is(cause, kv.ErrLeaseLost) || p.Ready() {
			t.Errorf("after leaving the lease ended with %v and ready is %v", cause, p.Ready())
		}
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("leaving took %v", took)
		}
	})
}

// The description is there for every incarnation, and is newer than it.
func TestInfo(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		infos := kv.Open(pub, ns.Bucket("nodes"), kv.JSON[nodes.Info]())
		given := nodes.Info{
			Labels: map[string]string{"zone": "a"}, Kinds: []string{"email.send"}, Queues: []string{"email"},
			Slots: 3, Role: nodes.RoleWorker, Build: "v1", Host: "web", PID: 7, Started: time.Now().UTC(),
		}
		p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1", Info: given})
		if err != nil {
			t.Fatal(err)
		}
		stored, err := infos.Get(t.Context(), "info.n1")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(given, stored.Value); d != "" {
			t.Errorf("stored description (-want +got):\n%s", d)
		}
		if stored.Revision <= p.Incarnation() {
			t.Errorf("description %d is not newer than incarnation %d", stored.Revision, p.Incarnation())
		}

		if err := p.SetInfo(t.Context(), func(i *nodes.Info) { i.Draining, i.Labels["zone"] = true, "b" }); err != nil {
			t.Fatal(err)
		}
		if given.Labels["zone"] != "a" {
			t.Error("the description shares its labels with the caller")
		}
		changed, err := infos.Get(t.Context(), "info.n1")
		if err != nil || !changed.Value.Draining || changed.Value.Labels["zone"] != "b" {
			t.Errorf("after SetInfo the description is %+v, %v", changed.Value, err)
		}
		time.Sleep(7 * time.Hour)
		if later, err := infos.Get(t.Context(), "info.n1"); err != nil || later.Revision == changed.Revision {
			t.Errorf("seven hours later the description is at %d, %v; it was at %d", later.Revision, err, changed.Revision)
		}
		p.crash()
		time.Sleep(25 * time.Hour)
		if _, err := infos.Get(t.Context(), "info.n1"); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("a day after the crash the description reads %v", err)
		}
	})
}

// A change that could not be stored is stored when NATS is back.
func TestSetInfoWhileAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		for i, away := range []time.Duration{lease / 3, 3 * lease} {
			p := join(t, srv, fmt.Sprint("n", i))
			p.link.Down()
			time.Sleep(time.Millisecond)
			if err := p.SetInfo(t.Context(), func(i *nodes.Info) { i.Draining = true }); err == nil {
				t.Error("a change was stored without NATS")
			}
			time.Sleep(away)
			p.link.Up()
			time.Sleep(lease)
			members, err := nodes.List(t.Context(), pub, ns)
			if err != nil || len(members) != i+1 || members[i].State != nodes.Draining {
				t.Errorf("%v away: afterwards the nodes are %+v, %v", away, members, err)
			}
		}
	})
}

// Whoever waits until another change is stored does so no longer than he wants, and his
// change is stored all the same.
func TestSetInfoGivesUp(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		armed := make(chan struct{})
		link := natstest.NewLink(t, srv, natstest.HoldFirst(armed), "$KV.*.info.>")
		p, err := joinOn(t, link, nodes.Options{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		close(armed)
		kinds := 0
		natstest.GivesUp(t, link, func(ctx context.Context) error {
			kinds++
			return p.SetInfo(ctx, func(i *nodes.Info) { i.Kinds = append(i.Kinds, fmt.Sprint("k", kinds)) })
		})
		time.Sleep(lease)
		if m := look(t, pub, "n"); len(m.Kinds) != 2 {
			t.Errorf("it runs %v", m.Kinds)
		}
	})
}

// Every life of an ID has a larger incarnation than the one before, however
// that ended.
func TestIncarnationGrows(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		last := uint64(0)
		for i := range 6 {
			p := join(t, srv, "n1")
			if p.Incarnation() <= last {
				t.Errorf("incarnation %d follows %d", p.Incarnation(), last)
			}
			last = p.Incarnation()
			if i%2 == 0 {
				p.crash()
			} else {
				p.leave()
			}
			time.Sleep(time.Duration(i) * lease)
		}
	})
}

// Without an ID a node gets one of its host, and two on one host get two.
func TestDefaultID(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		opts := nodes.Options{Info: nodes.Info{Host: "web-1.example.com"}}
		a, errA := joinOn(t, network(t, srv, nil), opts)
		b, errB := joinOn(t, network(t, srv, nil), opts)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		for _, id := range []string{a.ID(), b.ID()} {
			if tail, ok := strings.CutPrefix(id, "web-1-example-com-"); !ok || len(tail) != 4 {
				t.Errorf("ID is %s", id)
			}
		}
		if a.ID() == b.ID() {
			t.Errorf("two nodes are %s", a.ID())
		}
		opts.Info.Host = strings.Repeat("ü", 100)
		if long, err := joinOn(t, network(t, srv, nil), opts); err != nil || len(long.ID()) != 64 {
			t.Errorf("a long host name: %v, %v", long, err)
		}
	})
}

// Under an ID that was given, a process is refused as soon as it sees the other
// renew, and in one line.
func TestExplicitIDTaken(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		first, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1", Info: nodes.Info{Host: "web", PID: 7}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1"})
		if !errors.Is(err, nodes.ErrTaken) || !strings.Contains(err.Error(), "web/7/") || strings.Contains(err.Error(), "\n") {
			t.Errorf("refused with %v", err)
		}
		if took := time.Since(start); took > lease/2 {
			t.Errorf("refused after %v, want soon after the first renewal", took)
		}
		if !first.Ready() {
			t.Error("the first node suffered")
		}
	})
}

// Two processes that start at the same time under one ID: one of them gets it,
// and the description is its own.
func TestExplicitIDRace(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		var group sync.WaitGroup
		won := make([]string, 4)
		for i := range won {
			host := fmt.Sprint("host", i)
			link := network(t, srv, nil)
			group.Go(func() {
				p, err := joinOn(t, link, nodes.Options{ID: "n1", Info: nodes.Info{Host: host}})
				switch {
				case err == nil:
					won[i] = p.Info().Host
				case !errors.Is(err, nodes.ErrTaken):
					t.Error(err)
				}
			})
		}
		group.Wait()
		members, err := nodes.List(t.Context(), pub, ns)
		if err != nil || len(members) != 1 || members[0].Host != strings.Join(won, "") {
			t.Errorf("%q won; the nodes are %+v, %v", won, members, err)
		}
	})
}

// Under an ID that was given, a process waits until its predecessor has expired.
func TestExplicitIDExpires(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		first := join(t, srv, "n1")
		before := first.Incarnation()
		first.crash()
		start := time.Now()
		second := join(t, srv, "n1")
		if took := time.Since(start); took < lease/2 || took > gone {
			t.Errorf("joined after %v, want when the key expires", took)
		}
		if second.Incarnation() <= before {
			t.Errorf("incarnation %d follows %d", second.Incarnation(), before)
		}
	})
}

// Bad options are refused in one line, all of them at once.
func TestJoinChecksOptions(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		_, err := nodes.Join(t.Context(), pub, nodes.Options{Namespace: "a.b", ID: "n 1"})
		for _, want := range []string{`namespace "a.b"`, `node "n 1"`, "lease is 0s"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("refused with %v, which does not say %s", err, want)
			}
		}
	})
}

// Where there are no assets, Join says so and does not wait for them.
func TestJoinWithoutAssets(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		_, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1"})
		if err == nil || !strings.Contains(err.Error(), "stream not found") {
			t.Errorf("joined with %v", err)
		}
	})
}

// A node that is cut off for less than its lease keeps its incarnation.
func TestShortOutage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		p := join(t, srv, "n1")
		ctx, before := p.Lease()
		time.Sleep(lease)
		p.link.Down()
		time.Sleep(lease / 2)
		p.link.Up()
		time.Sleep(10 * lease)
		if _, now := p.Lease(); ctx.Err() != nil || now != before {
			t.Errorf("afterwards the incarnation is %d with %v, want %d", now, ctx.Err(), before)
		}
	})
}

// A node that is cut off for longer loses its lease by its own clock, before
// anybody else may think so, and comes back under a larger incarnation.
func TestLongOutage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		ctx, before := p.Lease()
		time.Sleep(lease)
		p.link.Down()
		<-ctx.Done()
		if _, err := beats(pub).Get(t.Context(), "beat.n1"); err != nil {
			t.Errorf("the lease ended, but the key reads %v", err)
		}
		if cause := context.Cause(ctx); !errors.Is(cause, kv.ErrLeaseLost) || p.Ready() {
			t.Errorf("the lease ended with %v, ready is %v", cause, p.Ready())
		}
		time.Sleep(time.Hour)
		start := time.Now()
		p.link.Up()
		ctx, now, err := p.Registered(t.Context())
		if err != nil || now <= before || ctx.Err() != nil {
			t.Errorf("registered again as %d with %v, %v; it was %d", now, ctx.Err(), err, before)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("registered %v after the link was up", took)
		}
	})
}

// A process that loses its lease while its key is still there takes it over at
// once.
func TestTakesOverOwnKey(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		ctx, before := p.Lease()
		time.Sleep(lease)
		p.link.Down()
		<-ctx.Done()
		p.link.Up()
		if _, now, err := p.Registered(t.Context()); err != nil || now <= before {
			t.Errorf("registered again as %d, %v; it was %d", now, err, before)
		}
		if entry, err := beats(pub).Get(t.Context(), "beat.n1"); err != nil || kv.EpochOf(entry) != p.Incarnation() {
			t.Errorf("the key reads %+v, %v", entry, err)
		}
	})
}

// A key that somebody deleted by hand is taken again.
func TestKeyDeleted(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		ctx, before := p.Lease()
		remove(t, beats(pub), "beat.n1")
		<-ctx.Done()
		if _, now, err := p.Registered(t.Context()); err != nil || now <= before {
			t.Errorf("registered again as %d, %v; it was %d", now, err, before)
		}
	})
}

// remove deletes a key whatever its revision is.
func remove(t *testing.T, b *kv.Bucket[kv.Held], key string) {
	t.Helper()
	entry, err := b.Get(t.Context(), key)
	if err == nil {
		err = b.Delete(t.Context(), key, entry.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A process whose ID went to another one while it was away gives up.
func TestIDLostToAnother(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		first := join(t, srv, "n1")
		first.link.Down()
		second := join(t, srv, "n1")
		first.link.Up()
		<-first.ended
		if !errors.Is(first.err, nodes.ErrTaken) || strings.Contains(first.err.Error(), "\n") {
			t.Errorf("the first process ended with %v", first.err)
		}
		time.Sleep(lease)
		if !second.Ready() {
			t.Error("the second process suffered")
		}
	})
}

// Whatever write of a registration is struck, and however: the node comes to be
// registered and described, and never thinks that somebody else has its ID.
func TestRegistrationFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
		for number := 1; number <= 2; number++ {
			t.Run(fmt.Sprint(fault, " ", number), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					pub := setup(t, srv)
					link := network(t, srv, func(w natstest.Write) natstest.Fault {
						if w.Number == number {
							return fault
						}
						return natstest.Pass
					})
					p, err := joinOn(t, link, nodes.Options{ID: "n1"})
					if err != nil {
						t.Fatal(err)
					}
					link.Release()
					time.Sleep(3 * lease)
					members, err := nodes.List(t.Context(), pub, ns)
					if err != nil || len(members) != 1 || members[0].Incarnation != p.Incarnation() || members[0].PID == 0 {
						t.Errorf("the nodes are %+v, %v; want incarnation %d", members, err, p.Incarnation())
					}
					if !p.Ready() {
						t.Error("the node is not ready")
					}
				})
			})
		}
	}
}

// The same when it registers again, with every write of that time struck in
// turn until the node gets through.
func TestRegistrationAgainFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				pub := setup(t, srv)
				var mu sync.Mutex
				strikes := 0
				link := network(t, srv, func(natstest.Write) natstest.Fault {
					mu.Lock()
					defer mu.Unlock()
					if strikes == 0 {
						return natstest.Pass
					}
					strikes--
					return fault
				})
				p, err := joinOn(t, link, nodes.Options{ID: "n1"})
				if err != nil {
					t.Fatal(err)
				}
				before := p.Incarnation()
				mu.Lock()
				strikes = 5
				mu.Unlock()
				remove(t, beats(pub), "beat.n1")
				time.Sleep(20 * lease)
				if !p.Ready() || p.Incarnation() <= before {
					t.Errorf("ready is %v, incarnation %d; it was %d", p.Ready(), p.Incarnation(), before)
				}
				link.Release()
				time.Sleep(lease)
				if !p.Ready() {
					t.Error("writes that landed late made the node lose its lease")
				}
			})
		})
	}
}

// After a restart of the server every node keeps its key, since all of them beat
// at once when they are connected again.
func TestServerRestart(t *testing.T) {
	const count = 50
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		dir := t.TempDir()
		srv := natstest.Start(t, dir)
		setup(t, srv)
		all := make([]*process, count)
		links := make([]*natstest.Link, count)
		incarnations := make([]uint64, count)
		for i := range all {
			all[i] = join(t, srv, fmt.Sprint("n", i))
			links[i], incarnations[i] = all[i].link, all[i].Incarnation()
		}
		time.Sleep(lease / 2)
		natstest.Stop(srv, links...)
		time.Sleep(lease * 2 / 3)
		srv = natstest.Start(t, dir)
		for _, link := range links {
			link.Reroute(srv)
		}
		time.Sleep(lease)
		for i, p := range all {
			if !p.Ready() || p.Incarnation() != incarnations[i] {
				t.Errorf("node %s: ready is %v, incarnation %d; it was %d", p.ID(), p.Ready(), p.Incarnation(), incarnations[i])
			}
			p.leave() // while the server is there
		}
	})
}

// A process that is cut off and told to stop while it joins does stop.
func TestJoinStopped(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
			if strings.Contains(w.Subject, ".info.") { // the beat is there
				return natstest.DownBefore
			}
			return natstest.Pass
		}, "$KV.>")
		pub := open(t, link.Connect(t))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := nodes.Join(ctx, pub, nodes.Options{Namespace: ns, ID: "a", Lease: lease, Logger: quiet}); err == nil {
			t.Error("it joined without a description")
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it stopped after %v", took)
		}
	})
}
