package nodes_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
)

// drain asks a node to drain, in the background, and returns where the answer
// comes.
func drain(t *testing.T, pub *publish.Publisher, node string) <-chan error {
	t.Helper()
	answer := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var asking sync.WaitGroup
	asking.Go(func() { answer <- nodes.NewAsker(pub, ns).Drain(ctx, node) })
	t.Cleanup(func() { cancel(); asking.Wait() })
	return answer
}

// undrain asks a node to take again.
func undrain(t *testing.T, pub *publish.Publisher, node string) {
	t.Helper()
	if err := nodes.NewAsker(pub, ns).Undrain(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}

// acknowledged demands an answer within d that says that all went well.
func acknowledged(t *testing.T, answer <-chan error, d time.Duration) {
	t.Helper()
	select {
	case err := <-answer:
		if err != nil {
			t.Errorf("drain: %v", err)
		}
	case <-time.After(d):
		t.Fatalf("the drain is not acknowledged within %v", d)
	}
}

// unanswered demands that there is no answer for d.
func unanswered(t *testing.T, answer <-chan error, d time.Duration) {
	t.Helper()
	select {
	case err := <-answer:
		t.Fatalf("the drain has an answer: %v", err)
	case <-time.After(d):
	}
}

// look returns how others see a node.
func look(t *testing.T, pub *publish.Publisher, node string) nodes.Member {
	t.Helper()
	list, err := nodes.List(t.Context(), pub, ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.ID == node {
			return m
		}
	}
	return nodes.Member{}
}

// A drain holds from the moment in which the node hears of it, is acknowledged
// when nothing is being taken any more, and holds up no other request. Its
// opposite undoes it.
func TestDrain(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		settled := make(chan struct{})
		p, err := joinOn(t, network(t, srv, nil), nodes.Options{
			ID: "n1", Runs: runsOne, Load: func() int { return 7 },
			Settle: func(ctx context.Context) error {
				select {
				case <-settled:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		drained, turned := p.Drained()
		if drained {
			t.Error("a new node is drained")
		}
		answer := drain(t, pub, "n1")
		<-turned
		if drained, _ := p.Drained(); !drained {
			t.Error("the node has changed its mind and is not drained")
		}
		unanswered(t, answer, time.Minute)
		if m := look(t, pub, "n1"); m.State != nodes.Draining || !m.Drained {
			t.Errorf("the node is %s, drained is %v, want draining", m.State, m.Drained)
		}
		claim := nodes.Claim{Node: "n1", Incarnation: p.Incarnation(), Job: "email.1", Token: "T"}
		if got := ask(t, pub, claim); got != nodes.Yes {
			t.Errorf("asked for a job meanwhile it says %v, want yes", got)
		}
		load, err := nodes.NewAsker(pub, ns).Load(t.Context(), "n1")
		if want := (nodes.Load{Running: 7, Draining: true}); err != nil || load != want {
			t.Errorf("its load is %+v, %v, want %+v", load, err, want)
		}
		close(settled)
		acknowledged(t, answer, 10*time.Second)
		if err := p.SetInfo(t.Context(), func(i *nodes.Info) { i.Draining = false }); err != nil {
			t.Fatal(err)
		}
		if m := look(t, pub, "n1"); m.State != nodes.Draining {
			t.Errorf("the node is %s after a change of its description, want draining", m.State)
		}

		undrain(t, pub, "n1")
		if drained, _ := p.Drained(); drained {
			t.Error("the node is drained after it was asked to take again")
		}
		if m := look(t, pub, "n1"); m.State != nodes.Alive || m.Drained {
			t.Errorf("the node is %s, drained is %v, want alive", m.State, m.Drained)
		}
	})
}

// Who drains a node hears it if somebody undoes that before it is acknowledged.
func TestDrainUndone(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		settled := make(chan struct{})
		p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1", Settle: func(context.Context) error { <-settled; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		answer := drain(t, pub, "n1")
		synctest.Wait()
		undrain(t, pub, "n1")
		close(settled)
		if err := <-answer; err == nil || !strings.Contains(err.Error(), "opposite") {
			t.Errorf("drain: %v, want that somebody asked for the opposite", err)
		}
		if drained, _ := p.Drained(); drained {
			t.Error("the node is drained")
		}
	})
}

// A node that is not there cannot be drained, and one that is about to go is
// asked until it is gone.
func TestDrainOffline(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		offline := func(node, want string) {
			t.Helper()
			err := nodes.NewAsker(pub, ns).Drain(t.Context(), node)
			if !errors.Is(err, nodes.ErrOffline) || !strings.Contains(err.Error(), want) {
				t.Errorf("drain %s: %v, want that it is offline, and %q", node, err, want)
			}
			if err := nodes.NewAsker(pub, ns).Undrain(t.Context(), node); !errors.Is(err, nodes.ErrOffline) {
				t.Errorf("undrain %s: %v, want that it is offline", node, err)
			}
		}
		offline("n0", "check its ID")
		join(t, srv, "n1").leave()
		offline("n1", "does when it comes back")

		dying := join(t, srv, "n2")
		acknowledged(t, drain(t, pub, "n2"), time.Second)
		dying.crash()
		start := time.Now()
		offline("n2", "takes nothing if it comes back")
		if took := time.Since(start); took < lease/2 || took > gone {
			t.Errorf("given up on after %v, want about the lease, %v", took, lease)
		}
		if err := nodes.NewAsker(pub, ns).Drain(t.Context(), "a.b"); err == nil {
			t.Error("a node is asked whose ID is none")
		}
	})
}

// A drain that somebody asked for outlives the process, under an ID that was
// given; what a process says of itself does not.
func TestDrainOutlives(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		acknowledged(t, drain(t, pub, "n1"), time.Second)
		p.leave()
		if m := look(t, pub, "n1"); m.State != nodes.Offline || !m.Drained {
			t.Errorf("a node that has left is %s, drained is %v, want offline and drained", m.State, m.Drained)
		}
		for range 2 { // also without a word
			p = join(t, srv, "n1")
			if drained, _ := p.Drained(); !drained {
				t.Fatal("the drain is forgotten")
			}
			if m := look(t, pub, "n1"); m.State != nodes.Draining {
				t.Errorf("the node is %s, want draining", m.State)
			}
			p.crash()
		}
		p = join(t, srv, "n1")
		undrain(t, pub, "n1")
		if err := p.SetInfo(t.Context(), func(i *nodes.Info) { i.Draining = true }); err != nil {
			t.Fatal(err)
		}
		if m := look(t, pub, "n1"); m.State != nodes.Draining {
			t.Errorf("the node is %s while its process drains, want draining", m.State)
		}
		p.leave()
		p = join(t, srv, "n1")
		if drained, _ := p.Drained(); drained || p.Info().Draining {
			t.Error("the next process drains because the last one did")
		}
	})
}

// A node that loses its lease is drained under its next incarnation, too.
func TestDrainLostLease(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := join(t, srv, "n1")
		before := p.Incarnation()
		acknowledged(t, drain(t, pub, "n1"), time.Second)
		p.link.Down()
		time.Sleep(2 * lease)
		answer := drain(t, pub, "n1")
		p.link.Up()
		until(t, "the node is back", func() bool { return p.Ready() && p.Incarnation() > before })
		if err := <-answer; err != nil && !errors.Is(err, nodes.ErrOffline) {
			t.Errorf("drain: %v", err)
		}
		if drained, _ := p.Drained(); !drained {
			t.Error("the drain is forgotten")
		}
		if m := look(t, pub, "n1"); m.State != nodes.Draining {
			t.Errorf("the node is %s, want draining", m.State)
		}
	})
}

// Whatever is lost of a drain, on its way to the description and back to whoever
// asked, it is acknowledged in the end, and only when it is stored.
func TestDrainFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
		for write := 1; write <= 2; write++ { // the description, the answer
			if write == 2 && (fault == natstest.LoseAnswer || fault == natstest.CutAfter) {
				continue // an answer is not answered
			}
			t.Run(fmt.Sprint(fault, " at write ", write), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					pub := setup(t, srv)
					var armed atomic.Bool
					p, err := joinOn(t, faulty(t, srv, &armed, write, fault), nodes.Options{ID: "n1"})
					if err != nil {
						t.Fatal(err)
					}
					armed.Store(true)
					acknowledged(t, drain(t, pub, "n1"), time.Minute)
					if m := look(t, pub, "n1"); !m.Drained || m.State != nodes.Draining {
						t.Errorf("acknowledged, and the node is %s, drained is %v", m.State, m.Drained)
					}
					armed.Store(false)
					p.leave()
					p = join(t, srv, "n1")
					if drained, _ := p.Drained(); !drained {
						t.Error("acknowledged, and forgotten")
					}
				})
			})
		}
	}
}

// Wherever the process dies, asking the next one settles what became of the
// drain, and what was stored holds.
func TestDrainCrash(t *testing.T) {
	for write, fault := range map[int]natstest.Fault{1: natstest.DownBefore, 2: natstest.DownAfter, 3: natstest.DownBefore} {
		t.Run(fmt.Sprint(fault, " at point ", write), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				pub := setup(t, srv)
				var armed atomic.Bool
				p, err := joinOn(t, faulty(t, srv, &armed, (write+1)/2, fault), nodes.Options{ID: "n1"})
				if err != nil {
					t.Fatal(err)
				}
				armed.Store(true)
				answer := drain(t, pub, "n1")
				unanswered(t, answer, time.Second)
				p.crash()
				q := join(t, srv, "n1")
				if drained, _ := q.Drained(); drained != (write > 1) {
					t.Errorf("the next process is drained: %v, want %v", drained, write > 1)
				}
				if err := <-answer; err != nil && !errors.Is(err, nodes.ErrOffline) {
					t.Errorf("drain: %v", err)
				}
				acknowledged(t, drain(t, pub, "n1"), 10*time.Second)
				if drained, _ := q.Drained(); !drained {
					t.Error("acknowledged, and not drained")
				}
			})
		})
	}
}

// faulty is a network that strikes one write of a drain: 1 is the description,
// 2 the answer to whoever asked.
func faulty(t *testing.T, srv *server.Server, armed *atomic.Bool, write int, fault natstest.Fault) *natstest.Link {
	t.Helper()
	struck := false
	return natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
		answer := strings.HasPrefix(w.Subject, "_INBOX.")
		if !armed.Load() || struck || answer != (write == 2) {
			return natstest.Pass
		}
		struck = true
		return fault
	}, "$KV.*.info.>", "_INBOX.>")
}
