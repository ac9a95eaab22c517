package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// lostPolicies are what can become of a part whose node is gone.
var lostPolicies = map[string]engine.BroadcastOptions{
	"fail": {}, "wait": {OnLost: engine.LostWaits, Deadline: time.Hour},
}

// flap takes something from a node for a while, again and again.
func (f *fleet) flap(l *life, times int, away, there time.Duration, take, give func()) {
	for range times {
		back := f.cutOff(l, take, give)
		time.Sleep(away)
		back()
		time.Sleep(there)
	}
}

// A node flaps: it is gone for longer than a lease, or nearly, again and again, and is
// the same process all the time. Its part is lost, or goes on as long as it takes.
func TestPartsWhenANodeFlaps(t *testing.T) {
	for name, opts := range lostPolicies {
		for _, away := range []time.Duration{lease / 2, lease + time.Second, 3 * lease} {
			for _, deaf := range []bool{false, true} {
				for how, tear := range map[string]func(*natstest.Link) (take, give func()){
					"cut off": func(l *natstest.Link) (func(), func()) { return l.Down, l.Up },
					"frozen":  func(l *natstest.Link) (func(), func()) { return l.Freeze, l.Thaw },
				} {
					t.Run(fmt.Sprintf("%s %v %s deaf %t", name, away, how, deaf), func(t *testing.T) {
						natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
							f := newFleet(t, srv, "a", "b", "c")
							f.fill("c", 20*time.Second)
							id := f.broadcast(push{Work: 30 * time.Second, Deaf: deaf}, opts)
							time.Sleep(2 * time.Second)
							for _, node := range []string{"b", "c"} {
								l := f.nodes[node]
								take, give := tear(l.p.link)
								f.flap(l, 4, away, 4*time.Second, take, give)
							}
							f.endsWell(id, opts.OnLost == engine.LostWaits)
						})
					})
				}
			}
		}
	}
}

// endsWell fails the test unless a broadcast ends, each part as its policy says: all
// succeed if they wait for their nodes, and none but those that are lost fails otherwise.
func (f *fleet) endsWell(id string, waits bool) {
	f.Helper()
	info := f.await(id, 10*time.Minute)
	f.check(info)
	for _, p := range info.Parts {
		if p.State != "succeeded" && (waits || p.State != "lost") {
			f.Errorf("%s: the part of %s is %s: %+v, %+v", id, p.Node, p.State, p.Error, p.Attempts)
		}
	}
}

// The beats of a node are lost for longer than its lease, and everything else that it
// says arrives: it answers when it is asked, and claims, and runs. Late beats do not
// come, or come all at once.
func TestPartsWhenBeatsAreLost(t *testing.T) {
	for name, opts := range lostPolicies {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, late %t", name, late), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					f := newFleet(t, srv, "a")
					var mute atomic.Bool
					f.unlucky = func(string) func(natstest.Write) natstest.Fault {
						return func(w natstest.Write) natstest.Fault {
							if mute.Load() && strings.HasPrefix(w.Subject, "$KV.mr_default_nodes.beat.") {
								return natstest.Hold
							}
							return natstest.Pass
						}
					}
					l := f.begin("b")
					f.unlucky = nil
					time.Sleep(2 * time.Second)
					f.fill("b", 20*time.Second)
					id := f.broadcast(push{Work: 30 * time.Second}, opts)
					time.Sleep(2 * time.Second)
					f.flap(l, 4, 2*lease, 5*time.Second, func() { mute.Store(true) }, func() {
						mute.Store(false)
						if late {
							l.p.link.Release()
						}
					})
					f.endsWell(id, opts.OnLost == engine.LostWaits)
				})
			})
		}
	}
}

// A part runs, waits for its node, or for its next attempt, when its broadcast ends: it
// is cancelled, runs out of time, is done without it, or is deleted as soon as it may be.
// Whoever does not listen goes on, and what it returns counts for nothing.
func TestPartsWhenTheirBroadcastEnds(t *testing.T) {
	ends := map[string]struct {
		opts  engine.BroadcastOptions
		state string
	}{
		"cancelled":   {engine.BroadcastOptions{}, "cancelled"},
		"out of time": {engine.BroadcastOptions{Deadline: 10 * time.Second}, "failed"},
		"done":        {engine.BroadcastOptions{Done: engine.DoneAny}, "succeeded"},
	}
	for name, c := range ends {
		for _, deaf := range []bool{false, true} {
			for _, dies := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, deaf %t, its node dies %t", name, deaf, dies), func(t *testing.T) {
					natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
						f := newFleet(t, srv, "a", "b", "c", "d")
						f.fill("c", 40*time.Second)
						c.opts.Retry = &engine.Retry{Delay: time.Minute, Jitter: -1}
						in := push{Work: 9 * time.Second, Deaf: deaf, Fails: map[string]int{"b": 9}}
						if name != "done" {
							in.Fails["a"] = 9
						}
						id := f.broadcast(in, c.opts)
						time.Sleep(5 * time.Second)
						late := f.broadcast(push{Work: 30 * time.Second, Deaf: deaf}, engine.BroadcastOptions{Deadline: 5 * time.Second})
						if dies {
							f.kill("d")
						}
						if name == "cancelled" {
							time.Sleep(5 * time.Second)
							if _, err := f.client.Cancel(t.Context(), id); err != nil {
								t.Fatal(err)
							}
						}
						info := f.await(id, time.Minute)
						f.check(info)
						if info.State != c.state {
							t.Errorf("it is %s: %s, want %s", info.State, tellParts(info), c.state)
						}
						f.check(f.await(late, 2*time.Minute))
						time.Sleep(2 * time.Minute)
						if n := len(f.of(id, "c")); n != 0 {
							t.Errorf("c started its part %d times, and had no time before the end", n)
						}
						f.leavesNothing(id, late)
					})
				})
			}
		}
	}
}

// leavesNothing deletes broadcasts whose parts have ended, and fails the test unless
// they are gone with everything that drives them.
func (f *fleet) leavesNothing(ids ...string) {
	f.Helper()
	for _, id := range ids {
		if err := f.client.Delete(f.Context(), id); err != nil {
			f.Errorf("delete %s: %v", id, err)
		}
		for _, node := range []string{"a", "b", "c", "d"} {
			if info, err := f.client.Get(f.Context(), engine.PartID(id, node)); err == nil {
				f.Errorf("part %s of %s is left, %s", node, id, info.State)
			}
		}
	}
	time.Sleep(2 * time.Minute)
	if n := streamInfo(f, f.client.nc, "mr_default_mail").State.Msgs; n != 0 {
		f.Errorf("%d messages are left in mailboxes", n)
	}
}

// A broadcast is deleted while a part of it runs: that is refused until the part has
// ended, or it goes with its parts, and whatever the handler returns, nothing is left.
func TestPartsWhenTheirBroadcastIsDeleted(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint("deaf ", deaf), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				f := newFleet(t, srv, "a", "b", "c", "d")
				id := f.broadcast(push{Work: 30 * time.Second, Deaf: deaf}, engine.BroadcastOptions{})
				time.Sleep(2 * time.Second)
				if err := f.client.Delete(t.Context(), id); err == nil {
					t.Error("it was deleted while it waited for its parts")
				}
				if _, err := f.client.Cancel(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				f.kill("d")
				refused, gone := 0, false
				for range 90 {
					if err := f.client.Delete(t.Context(), id); err == nil {
						gone = true
						break
					}
					refused++
					time.Sleep(time.Second)
				}
				if !gone || deaf && refused < 20 {
					t.Errorf("it was deleted: %t, and that was refused %d times", gone, refused)
				}
				time.Sleep(time.Minute)
				for _, stream := range []string{"KV_mr_default_jobs", "mr_default_mail", "mr_default_timers"} {
					if n := streamInfo(t, f.client.nc, stream).State.Msgs; n != 0 {
						t.Errorf("%d messages are left in %s", n, stream)
					}
				}
				if got := f.startedOn(id); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
					t.Errorf("parts were started on %v, want once on each node", got)
				}
			})
		})
	}
}

// A node is drained, and undrained, between the dispatch and the claim of its part: while
// the part lies there, and while its claim is under way. It runs once, on its node.
func TestPartsDrainBeforeTheClaim(t *testing.T) {
	for name, opts := range lostPolicies {
		for _, times := range []int{1, 2, 5} {
			for _, busy := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d times, busy %t", name, times, busy), func(t *testing.T) {
					natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
						f := newFleet(t, srv, "a")
						c := &fall{number: 1, fault: natstest.Hold, dead: make(chan struct{})}
						f.unlucky = func(string) func(natstest.Write) natstest.Fault { return c.decide }
						l := f.begin("b")
						f.unlucky = nil
						time.Sleep(2 * time.Second)
						if busy {
							f.fill("b", 10*time.Second)
						} else {
							c.arm()
						}
						id := f.broadcast(push{Work: 5 * time.Second}, opts)
						if !busy {
							<-c.dead
						}
						for range times {
							f.drained("b", 3*time.Second)
							time.Sleep(500 * time.Millisecond)
						}
						l.p.link.Release()
						info := f.await(id, 2*time.Minute)
						f.check(info)
						f.told(info, "succeeded", "a succeeded, b succeeded")
						if got := f.startedOn(id); !slices.Equal(got, []string{"a", "b"}) {
							t.Errorf("parts were started on %v, want once on each node", got)
						}
					})
				})
			}
		}
	}
}

// drained drains a node for some time. It may not answer meanwhile.
func (f *fleet) drained(node string, length time.Duration) {
	f.Helper()
	end := time.Now().Add(length)
	asked := make(chan error, 1)
	go func() { asked <- f.client.Drain(f.Context(), node) }()
	time.Sleep(time.Until(end))
	if err := f.client.Undrain(f.Context(), node); err != nil {
		f.Errorf("undrain %s: %v", node, err)
	}
	<-asked // whether it was drained before it was undrained does not matter
}

// A part waits for its next attempt when its node is gone, and when it comes back, before
// the verdict or after it, before the attempt is due or after it.
func TestPartsRetryWhenTheirNodeRestarts(t *testing.T) {
	for name, opts := range lostPolicies {
		for _, delay := range []time.Duration{2 * time.Second, 20 * time.Second, 3 * time.Minute} {
			for _, away := range []time.Duration{0, 3 * time.Second, time.Minute} {
				for _, stops := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, due after %v, away for %v, stops %t", name, delay, away, stops), func(t *testing.T) {
						natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
							f := newFleet(t, srv, "a", "b")
							opts.Retry = &engine.Retry{Delay: delay, Factor: 1, Jitter: -1}
							id := f.broadcast(push{Work: time.Second, Fails: map[string]int{"b": 2}}, opts)
							time.Sleep(1500 * time.Millisecond)
							end := f.kill
							if stops {
								end = f.halt
							}
							end("b")
							time.Sleep(away)
							f.begin("b")
							f.endsWell(id, opts.OnLost == engine.LostWaits)
							if n := len(f.of(id, "b")); n > 3 {
								t.Errorf("b started its part %d times, want 3 at most", n)
							}
						})
					})
				}
			}
		}
	}
}
