package timers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers"
)

// candidate stands for owner in a process of its own. It notes every reign.
type candidate struct {
	link   *natstest.Link
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	reigns  []uint64
	leading bool
}

// stand lets a node stand for owner until the test ends.
func stand(t *testing.T, link *natstest.Link, node string) *candidate {
	t.Helper()
	return standAs(t, link, timers.StandOptions{Node: node})
}

// depute is stand for a deputy.
func depute(t *testing.T, link *natstest.Link, node string) *candidate {
	t.Helper()
	return standAs(t, link, timers.StandOptions{Node: node, Deputy: true})
}

func standAs(t *testing.T, link *natstest.Link, opts timers.StandOptions) *candidate {
	t.Helper()
	opts.Lease, opts.Logger = lease, quiet
	c := &candidate{link: link, ended: make(chan struct{})}
	pub := open(t, link.Connect(t))
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(t.Context())
	go func() {
		defer close(c.ended)
		if err := timers.Stand(ctx, pub, opts, c.lead); err != nil {
			t.Errorf("%s stood for owner: %v", opts.Node, err)
		}
	}()
	t.Cleanup(c.stop)
	return c
}

func (c *candidate) stop() { c.cancel(); <-c.ended }

func (c *candidate) lead(ctx context.Context, l *kv.Lease) error {
	c.set(func() { c.reigns, c.leading = append(c.reigns, l.Epoch()), true })
	<-ctx.Done()
	c.set(func() { c.leading = false })
	return context.Cause(ctx)
}

func (c *candidate) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// leads reports whether c is owner, and its epochs so far.
func (c *candidate) leads() (bool, []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leading, append([]uint64(nil), c.reigns...)
}

// awaitOwner waits until c is owner, and returns how long that took.
func awaitOwner(t *testing.T, c *candidate) time.Duration {
	t.Helper()
	start := time.Now()
	until(t, "the candidate is owner", func() bool { leads, _ := c.leads(); return leads })
	return time.Since(start)
}

// removeOwner deletes the owner's key, as somebody may do by hand.
func removeOwner(t *testing.T, pub *publish.Publisher) {
	t.Helper()
	entry, err := leases(pub).Get(t.Context(), "owner")
	if err == nil {
		err = leases(pub).Delete(t.Context(), "owner", entry.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// One of two is owner; when it stops, the other one is at once.
func TestHandOver(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		a := stand(t, network(t, srv, nil), "a")
		awaitOwner(t, a)
		b := stand(t, network(t, srv, nil), "b")
		time.Sleep(10 * lease)
		if leads, _ := b.leads(); leads {
			t.Fatal("there are two owners")
		}
		a.stop()
		if took := awaitOwner(t, b); took > 50*time.Millisecond {
			t.Errorf("handed over after %v", took)
		}
		_, before := a.leads()
		if _, after := b.leads(); len(before) != 1 || after[0] <= before[0] {
			t.Errorf("epoch %v follows %v", after, before)
		}
	})
}

// An owner that is cut off ceases to be before the next one is, and stands again.
func TestOwnerExpires(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		a := stand(t, network(t, srv, nil), "a")
		awaitOwner(t, a)
		b := stand(t, network(t, srv, nil), "b")
		time.Sleep(lease)
		a.link.Down()
		until(t, "the owner ceases", func() bool { leads, _ := a.leads(); return !leads })
		if leads, _ := b.leads(); leads {
			t.Error("there were two owners")
		}
		if took := awaitOwner(t, b); took > lease/12+time.Second {
			t.Errorf("the next owner came %v later", took)
		}
		a.link.Up()
		time.Sleep(lease)
		b.stop()
		if took := awaitOwner(t, a); took > 50*time.Millisecond {
			t.Errorf("the first is owner again after %v", took)
		}
	})
}

// When somebody deletes the key by hand, there is one owner again soon.
func TestOwnerKeyDeleted(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		a := stand(t, network(t, srv, nil), "a")
		awaitOwner(t, a)
		b := stand(t, network(t, srv, nil), "b")
		time.Sleep(lease)
		removeOwner(t, pub)
		time.Sleep(lease)
		leadsA, reignsA := a.leads()
		leadsB, reignsB := b.leads()
		if leadsA == leadsB {
			t.Errorf("owner is a: %v, b: %v", leadsA, leadsB)
		}
		if len(reignsA)+len(reignsB) != 2 {
			t.Errorf("reigns are %v and %v, want two", reignsA, reignsB)
		}
	})
}

// A candidate finds out that the owner has gone also when it cannot hear of it.
func TestHandOverUnheard(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		held, err := kv.Take(t.Context(), leases(pub), "owner", "old.x", kv.LeaseOptions{TTL: lease, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		a := stand(t, network(t, srv, nil), "a")
		time.Sleep(lease / 2)
		entry, err := leases(pub).Get(t.Context(), "owner")
		if err == nil {
			err = leases(pub).Remove(t.Context(), "owner", entry.Revision) // without a marker
		}
		if err != nil {
			t.Fatal(err)
		}
		if took := awaitOwner(t, a); took > lease/3+time.Second {
			t.Errorf("owner after %v", took)
		}
		if _, reigns := a.leads(); reigns[0] <= held.Epoch() {
			t.Errorf("epoch %d follows %d", reigns[0], held.Epoch())
		}
	})
}

// A candidate becomes owner over a key that a killed server brought back, and
// that nobody renews and nothing ends.
func TestOwnerKeyStale(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		stale, err := leases(pub).Create(t.Context(), "owner", kv.Held{Holder: "ghost.x", Token: "x"})
		if err != nil {
			t.Fatal(err)
		}
		a := stand(t, network(t, srv, nil), "a")
		if took := awaitOwner(t, a); took < 2*lease || took > 3*lease {
			t.Errorf("owner after %v, want after two leases", took)
		}
		if _, reigns := a.leads(); reigns[0] <= stale {
			t.Errorf("epoch %d follows %d", reigns[0], stale)
		}
	})
}

// Whatever becomes of the first writes: the candidate is owner, once.
func TestStandFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				setup(t, srv)
				link := network(t, srv, func(w natstest.Write) natstest.Fault {
					if w.Number <= 2 {
						return fault
					}
					return natstest.Pass
				})
				a := stand(t, link, "a")
				awaitOwner(t, a)
				link.Release()
				time.Sleep(3 * lease)
				if leads, reigns := a.leads(); !leads || len(reigns) != 1 {
					t.Errorf("owner is %v, its epochs are %v", leads, reigns)
				}
			})
		})
	}
}

// lead may end by itself: then Stand does, and the lease is free.
func TestLeadEnds(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		boom := errors.New("boom")
		for _, want := range []error{nil, boom} {
			err := timers.Stand(t.Context(), pub, timers.StandOptions{Node: "a", Lease: lease, Logger: quiet},
				func(context.Context, *kv.Lease) error { return want })
			if !errors.Is(err, want) {
				t.Errorf("Stand returned %v, want %v", err, want)
			}
			if _, err := leases(pub).Get(t.Context(), "owner"); !errors.Is(err, kv.ErrNotFound) {
				t.Errorf("afterwards the key reads %v", err)
			}
		}
		err := timers.Stand(t.Context(), pub, timers.StandOptions{Node: "a.b", Lease: lease}, nil)
		if err == nil || !strings.Contains(err.Error(), `node "a.b"`) {
			t.Errorf("Stand without a proper node returned %v", err)
		}
	})
}

// What leads may look at the lease alone, as the judge does: when the lease is
// lost and lead returns before its context ends, the process stands again.
func TestStandsAgainAfterLoss(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		ctx, cancel := context.WithCancel(t.Context())
		reigns := 0
		err := timers.Stand(ctx, pub, timers.StandOptions{Node: "a", Lease: lease, Logger: quiet},
			func(_ context.Context, l *kv.Lease) error {
				if reigns++; reigns == 50 {
					cancel()
					return nil
				}
				removeOwner(t, pub)
				<-l.Context().Done()
				return nil
			})
		if err != nil || reigns != 50 {
			t.Errorf("Stand returned %v after %d reigns, want 50", err, reigns)
		}
	})
}

// The lease stays valid while lead comes to its end.
func TestLeadEndsUnderLease(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		ctx, cancel := context.WithCancel(t.Context())
		err := timers.Stand(ctx, pub, timers.StandOptions{Node: "a", Lease: lease, Logger: quiet},
			func(ctx context.Context, l *kv.Lease) error {
				cancel()
				<-ctx.Done()
				time.Sleep(3 * lease)
				if !l.Valid() {
					t.Error("the lease ended before lead did")
				}
				return context.Cause(ctx)
			})
		if err != nil {
			t.Errorf("Stand returned %v", err)
		}
	})
}

// Many candidates, and owners that stop one after the other: there is never more
// than one, and epochs grow.
func TestOneOwner(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		var all []*candidate
		for i := range 5 {
			all = append(all, stand(t, network(t, srv, nil), fmt.Sprint("n", i)))
		}
		last := uint64(0)
		for len(all) > 0 {
			time.Sleep(lease)
			var owners []int
			for i, c := range all {
				if leads, _ := c.leads(); leads {
					owners = append(owners, i)
				}
			}
			if len(owners) != 1 {
				t.Fatalf("%d owners among %d", len(owners), len(all))
			}
			c := all[owners[0]]
			_, reigns := c.leads()
			if reigns[0] <= last {
				t.Errorf("epoch %d follows %d", reigns[0], last)
			}
			last = reigns[0]
			c.stop()
			all = append(all[:owners[0]], all[owners[0]+1:]...)
		}
	})
}
