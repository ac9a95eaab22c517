package nodes_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/timers"
)

// rule stands for owner and judges, until the function that it returns is called
// or the test ends.
func rule(t *testing.T, pub *publish.Publisher, node string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		opts := timers.StandOptions{Node: node, Lease: lease, Logger: quiet}
		err := timers.Stand(ctx, pub, opts, func(ctx context.Context, owner *kv.Lease) error {
			return nodes.NewJudge(pub, nodes.JudgeOptions{Lease: lease, Owner: owner, Logger: quiet}).Run(ctx)
		})
		if err != nil {
			t.Errorf("%s stood for owner: %v", node, err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// verdict returns the verdict on a node, 0 if there is none.
func verdict(t *testing.T, pub *publish.Publisher, node string) uint64 {
	t.Helper()
	entry, err := verdicts(pub).Get(t.Context(), "dead."+node)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		t.Fatal(err)
	}
	return entry.Value
}

// judged waits for a verdict of at least need, and returns how long that took.
func judged(t *testing.T, pub *publish.Publisher, node string, need uint64) time.Duration {
	t.Helper()
	start := time.Now()
	until(t, "a verdict on "+node, func() bool { return verdict(t, pub, node) >= need })
	return time.Since(start)
}

// A node that the owner saw alive is judged as soon as its key expires.
func TestVerdictOnCrash(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		p := join(t, srv, "n1")
		time.Sleep(2*lease + lease/6)
		if got := verdict(t, pub, "n1"); got != 0 {
			t.Fatalf("verdict %d on a live node", got)
		}
		p.crash()
		if took := judged(t, pub, "n1", p.Incarnation()); took < lease/2 || took > gone {
			t.Errorf("judged after %v, want when the key expires", took)
		}
		c := nodes.Claim{Node: "n1", Incarnation: p.Incarnation(), Job: "email.1"}
		if got := ask(t, pub, c); got != nodes.Dead {
			t.Errorf("asked about it: %v, want dead", got)
		}

		next := join(t, srv, "n1")
		if got := verdict(t, pub, "n1"); next.Incarnation() <= got {
			t.Errorf("the verdict %d covers incarnation %d, which came later", got, next.Incarnation())
		}
	})
}

// A node that left cleanly is judged within milliseconds.
func TestVerdictOnLeaving(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		p := join(t, srv, "n1")
		time.Sleep(2 * lease)
		p.leave()
		if took := judged(t, pub, "n1", p.Incarnation()); took > 100*time.Millisecond {
			t.Errorf("judged after %v", took)
		}
	})
}

// A node that went before the owner came is judged by its description, however
// long ago its last beat was.
func TestVerdictOnUnseen(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		p.crash()
		time.Sleep(12 * time.Hour)
		rule(t, pub, "boss")
		if took := judged(t, pub, "n1", p.Incarnation()); took < lease || took > 2*lease {
			t.Errorf("judged after %v, want when the owner's lease is old enough", took)
		}
	})
}

// A node of which nothing is stored any more is judged when somebody asks.
func TestVerdictOnForgotten(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		p.crash()
		time.Sleep(48 * time.Hour)
		rule(t, pub, "boss")
		time.Sleep(2 * lease)
		if got := verdict(t, pub, "n1"); got != 0 {
			t.Fatalf("verdict %d on a node of which nothing is stored", got)
		}
		c := nodes.Claim{Node: "n1", Incarnation: p.Incarnation(), Job: "email.1"}
		if got := ask(t, pub, c); got != nodes.Silent {
			t.Errorf("asked first: %v, want silent", got)
		}
		if took := judged(t, pub, "n1", p.Incarnation()); took > 100*time.Millisecond {
			t.Errorf("judged after %v", took)
		}
		if got := ask(t, pub, c); got != nodes.Dead {
			t.Errorf("asked again: %v, want dead", got)
		}
	})
}

// A frozen process is still connected but does not answer; it is judged a second
// later. When it wakes up, it comes back as another incarnation.
func TestVerdictOnFrozen(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		p := join(t, srv, "n1")
		before := p.Incarnation()
		time.Sleep(2*lease + lease/6)
		freeze(t, pub.Conn(), "n1")
		p.link.Down()
		if took := judged(t, pub, "n1", before); took < lease/2 || took > gone+time.Second {
			t.Errorf("judged after %v", took)
		}
		p.link.Up()
		if _, now, err := p.Registered(t.Context()); err != nil || now <= verdict(t, pub, "n1") {
			t.Errorf("registered again as %d, %v; the verdict is %d", now, err, verdict(t, pub, "n1"))
		}
		time.Sleep(lease)
		if now := p.Incarnation(); now <= verdict(t, pub, "n1") {
			t.Errorf("the verdict %d covers incarnation %d, which lives", verdict(t, pub, "n1"), now)
		}
	})
}

// There is no verdict while the owner's lease is younger than one lease: those
// who lost their keys in an outage have that time to come back.
func TestNoVerdictByNewOwner(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		p.leave()
		rule(t, pub, "boss")
		time.Sleep(lease - time.Second)
		if got := verdict(t, pub, "n1"); got != 0 {
			t.Errorf("verdict %d by an owner of less than one lease", got)
		}
		judged(t, pub, "n1", p.Incarnation())
	})
}

// Nor while the owner was cut off itself, however old its lease is.
func TestNoVerdictAfterBreak(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		link := network(t, srv, nil)
		rule(t, open(t, link.Connect(t)), "boss")
		p := join(t, srv, "n1")
		time.Sleep(3 * lease)
		p.leave()
		until(t, "a verdict", func() bool { return verdict(t, pub, "n1") > 0 })

		q := join(t, srv, "n2")
		link.Down()
		time.Sleep(lease / 3)
		link.Up()
		q.leave()
		time.Sleep(lease - time.Second)
		if got := verdict(t, pub, "n2"); got != 0 {
			t.Errorf("verdict %d within a lease of a break", got)
		}
		judged(t, pub, "n2", q.Incarnation())
	})
}

// Nor when it is cut off while it waits for an answer: the request may be lost.
func TestNoVerdictAfterBreakWhileAsking(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		link := network(t, srv, nil)
		rule(t, open(t, link.Connect(t)), "boss")
		p := join(t, srv, "n1")
		freeze(t, pub.Conn(), "n1")
		time.Sleep(3 * lease)
		p.leave()
		time.Sleep(500 * time.Millisecond)
		link.Cut()
		time.Sleep(lease - time.Second)
		if got := verdict(t, pub, "n1"); got != 0 {
			t.Errorf("verdict %d within a lease of a break", got)
		}
		judged(t, pub, "n1", p.Incarnation())
	})
}

// A node whose key is there is not judged, though somebody whom it did not
// answer suspects it.
func TestNoVerdictWhileItBeats(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		beat, err := kv.Take(t.Context(), beats(pub), "beat.n1", "x", kv.LeaseOptions{TTL: lease, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		kept := make(chan error)
		go func() { kept <- beat.Keep(ctx) }()
		for range 10 {
			time.Sleep(lease / 2)
			c := nodes.Claim{Node: "n1", Incarnation: beat.Epoch(), Job: "email.1"}
			if got := ask(t, pub, c); got != nodes.Silent {
				t.Errorf("asked: %v, want silent", got)
			}
		}
		if got := verdict(t, pub, "n1"); got != 0 {
			t.Errorf("verdict %d on a node that beats", got)
		}
		cancel()
		if err := <-kept; err != nil {
			t.Error(err)
		}
		judged(t, pub, "n1", beat.Epoch())
	})
}

// A node that answers although its key is gone is not judged, until it answers
// no more.
func TestNoVerdictWhileItAnswers(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		var blocked atomic.Bool
		link := network(t, srv, func(natstest.Write) natstest.Fault {
			if blocked.Load() {
				return natstest.CutBefore // it cannot register, but it is there
			}
			return natstest.Pass
		})
		p, err := joinOn(t, link, nodes.Options{ID: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		answering := open(t, natstest.Connect(t, srv))
		sub, err := answer(answering.Conn(), "n1")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		blocked.Store(true)
		time.Sleep(5 * lease)
		if _, err := beats(pub).Get(t.Context(), "beat.n1"); !errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("the key reads %v", err)
		}
		if got := verdict(t, pub, "n1"); got != 0 {
			t.Errorf("verdict %d on a node that answers", got)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		p.crash()
		if took := judged(t, pub, "n1", p.Incarnation()); took > 2*time.Second {
			t.Errorf("judged %v after it answered no more", took)
		}
	})
}

// A verdict only grows, and is written once for a death.
func TestVerdictGrows(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		time.Sleep(2 * lease)
		last := uint64(0)
		for i := range 5 {
			p := join(t, srv, "n1")
			if i%2 == 0 {
				p.leave()
			} else {
				p.crash()
			}
			judged(t, pub, "n1", p.Incarnation())
			entry, err := verdicts(pub).Get(t.Context(), "dead.n1")
			if err != nil || entry.Value <= last {
				t.Errorf("verdict %d, %v follows %d", entry.Value, err, last)
			}
			time.Sleep(3 * lease)
			if again, err := verdicts(pub).Get(t.Context(), "dead.n1"); err != nil || again.Revision != entry.Revision {
				t.Errorf("the verdict was written again: %+v, %v after %+v", again, err, entry)
			}
			last = entry.Value
		}
	})
}

// Two owners at once, such as one that was frozen and its successor, come to
// verdicts that are both true.
func TestTwoJudges(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		defer group.Wait()
		defer cancel()
		for i := range 2 {
			mine, err := kv.Take(t.Context(), leases(pub), fmt.Sprint("owner", i), "x", kv.LeaseOptions{TTL: lease, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			group.Go(func() { _ = mine.Keep(ctx) })
			judge := nodes.NewJudge(pub, nodes.JudgeOptions{Lease: lease, Owner: mine, Logger: quiet})
			group.Go(func() { _ = judge.Run(ctx) })
		}
		for i := range 5 {
			p := join(t, srv, "n1")
			time.Sleep(lease + time.Duration(i)*time.Second)
			p.leave()
			judged(t, pub, "n1", p.Incarnation())
			first, err := verdicts(pub).Get(t.Context(), "dead.n1")
			time.Sleep(lease)
			second, again := verdicts(pub).Get(t.Context(), "dead.n1")
			if err != nil || again != nil || first.Revision != second.Revision {
				t.Errorf("both wrote: %+v, %v, then %+v, %v", first, err, second, again)
			}
		}
	})
}

// A verdict whose answer is lost, or which lands late, does no harm.
func TestVerdictFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.LoseAnswer, natstest.CutAfter, natstest.CutBefore, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				pub := setup(t, srv)
				var strikes atomic.Int32
				strikes.Store(2)
				link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
					if strikes.Add(-1) >= 0 {
						return fault
					}
					return natstest.Pass
				}, "$KV.*.dead.>")
				rule(t, open(t, link.Connect(t)), "boss")
				p := join(t, srv, "n1")
				time.Sleep(2 * lease)
				p.leave()
				judged(t, pub, "n1", p.Incarnation())
				next := join(t, srv, "n1")
				time.Sleep(3 * lease)
				link.Release()
				if got := verdict(t, pub, "n1"); got < p.Incarnation() || got >= next.Incarnation() {
					t.Errorf("verdict %d, want one from %d to below %d", got, p.Incarnation(), next.Incarnation())
				}
			})
		})
	}
}

// After an outage longer than the lease, with all keys expired, nobody is judged
// who comes back.
func TestNoVerdictAfterOutage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, first *server.Server) {
		setup(t, first)
		link := network(t, first, nil)
		pub := open(t, link.Connect(t))
		rule(t, pub, "boss")
		var all []*process
		for i := range 10 {
			p, err := joinOn(t, link, nodes.Options{ID: fmt.Sprint("n", i)})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		time.Sleep(2 * lease)
		link.Down()
		time.Sleep(3 * lease)
		link.Up()
		time.Sleep(5 * lease)
		for _, p := range all {
			if got := verdict(t, pub, p.ID()); got != 0 || !p.Ready() {
				t.Errorf("%s: verdict %d, ready is %v", p.ID(), got, p.Ready())
			}
		}
	})
}

// Many nodes that go at once, none of which answers, are judged together.
func TestManyVerdicts(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		const count = 300
		rule(t, pub, "boss")
		infos := kv.Open(pub, ns.Bucket("nodes"), kv.JSON[nodes.Info]())
		time.Sleep(2 * lease)
		for i := range count {
			id := fmt.Sprint("n", i)
			freeze(t, pub.Conn(), id)
			if _, err := infos.Create(t.Context(), "info."+id, nodes.Info{}); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		until(t, "all verdicts", func() bool {
			list, err := verdicts(pub).ListStale(t.Context(), "dead.*")
			return err == nil && len(list) == count
		})
		if took := time.Since(start); took > lease {
			t.Errorf("judged after %v", took)
		}
	})
}
