package engine_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// B1: a node dies in its part. Its part is lost, or kept for it; nobody else runs it,
// and the broadcast says who is missing.
func TestPartsWhenANodeDies(t *testing.T) {
	cases := map[string]struct {
		opts         engine.BroadcastOptions
		state, parts string
		within       time.Duration
	}{
		"all":           {engine.BroadcastOptions{}, "failed", "a succeeded, b succeeded, c lost", 70 * time.Second},
		"quorum":        {engine.BroadcastOptions{Done: engine.DoneQuorum}, "succeeded", "a succeeded, b succeeded, c lost", 70 * time.Second},
		"two":           {engine.BroadcastOptions{Done: engine.DoneCount(2)}, "succeeded", "a succeeded, b succeeded, c lost", 70 * time.Second},
		"three":         {engine.BroadcastOptions{Done: engine.DoneCount(3)}, "failed", "a cancelled, b cancelled, c lost", 40 * time.Second},
		"it may return": {engine.BroadcastOptions{OnLost: engine.LostWaits, Deadline: 5 * time.Minute}, "failed", "a succeeded, b succeeded, c cancelled", 6 * time.Minute},
		"two, it may return": {
			engine.BroadcastOptions{OnLost: engine.LostWaits, Deadline: 5 * time.Minute, Done: engine.DoneCount(2)},
			"succeeded", "a succeeded, b succeeded, c cancelled", 70 * time.Second,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				f := newFleet(t, srv, "a", "b", "c")
				id := f.broadcast(push{Work: time.Minute}, c.opts)
				time.Sleep(5 * time.Second)
				f.kill("c")
				info := f.await(id, c.within)
				f.told(info, c.state, c.parts)
				f.check(info)
				if got := f.startedOn(id); !slices.Equal(got, []string{"a", "b", "c"}) {
					t.Errorf("parts were started on %v, want once on each node", got)
				}
				if info.Error != nil && info.Error.Code == "incomplete" && !strings.Contains(info.Error.Message, "c lost") {
					t.Errorf("the error does not say who is missing: %s", info.Error.Message)
				}
			})
		})
	}
}

// B3: a node dies in its part and comes back under its ID. A lost part stays lost; one
// that waits runs once more, there, and that is no failure.
func TestPartsWhenANodeReturns(t *testing.T) {
	for name, c := range map[string]struct {
		opts         engine.BroadcastOptions
		state, parts string
		starts       []string
	}{
		"fail": {engine.BroadcastOptions{MaxAttempts: 1}, "failed", "a succeeded, b succeeded, c lost", []string{"a", "b", "c"}},
		"wait": {
			engine.BroadcastOptions{OnLost: engine.LostWaits, Deadline: time.Hour, MaxAttempts: 1},
			"succeeded", "a succeeded, b succeeded, c succeeded",
			[]string{"a", "b", "c", "c"},
		},
	} {
		for _, away := range []time.Duration{0, 3 * time.Second, 20 * time.Second, 5 * time.Minute} {
			t.Run(name+" "+away.String(), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					f := newFleet(t, srv, "a", "b", "c")
					id := f.broadcast(push{Work: time.Minute}, c.opts)
					time.Sleep(5 * time.Second)
					f.kill("c")
					time.Sleep(away)
					f.begin("c")
					info := f.await(id, 3*time.Minute)
					f.told(info, c.state, c.parts)
					f.check(info)
					if got := f.startedOn(id); !slices.Equal(got, c.starts) {
						t.Errorf("parts were started on %v, want %v", got, c.starts)
					}
				})
			})
		}
	}
}

// A node dies before it could claim its part: it had no slot, or had not heard of it.
// Under fail the part is lost with the verdict on that life of the node. If it is back
// before there is one, it is the node that it was, and may have its part.
func TestPartsWhenANodeDiesBeforeTheClaim(t *testing.T) {
	for name, opts := range map[string]engine.BroadcastOptions{
		"fail": {}, "wait": {OnLost: engine.LostWaits, Deadline: time.Hour},
	} {
		for when, dies := range map[string]func(f *fleet){
			"just before the dispatch": nil,
			"busy":                     func(f *fleet) { time.Sleep(time.Second); f.kill("b") },
		} {
			for _, away := range []time.Duration{0, time.Second, 30 * time.Second} {
				t.Run(name+" "+when+" "+away.String(), func(t *testing.T) {
					natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
						f := newFleet(t, srv, "a", "b")
						if dies == nil {
							f.kill("b") // its key is there for some seconds
						} else {
							f.fill("b", time.Minute)
						}
						id := f.broadcast(push{Work: time.Second}, opts)
						if dies != nil {
							dies(f)
						}
						time.Sleep(away)
						f.begin("b")
						info := f.await(id, 3*time.Minute)
						f.check(info)
						switch {
						case away < 10*time.Second && info.State == "succeeded":
							f.told(info, "succeeded", "a succeeded, b succeeded")
						case opts.OnLost == engine.LostWaits:
							f.told(info, "succeeded", "a succeeded, b succeeded")
						default:
							f.told(info, "failed", "a succeeded, b lost")
						}
					})
				})
			}
		}
	}
}

// fill gives a node as much other work as it has slots.
func (f *fleet) fill(node string, work time.Duration) {
	f.Helper()
	for range f.slots {
		_, err := f.job(nil).Submit(f.Context(), f.client.Engine, push{Work: work}, engine.SubmitOptions{Place: engine.Place{Node: node}})
		if err != nil {
			f.Fatal(err)
		}
	}
	time.Sleep(time.Second)
}

// B4: who was there at the dispatch has a part, and nobody else: not who comes later,
// not who drains or was stopped before, not who lacks a label.
func TestPartsMembership(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c", "d")
		f.begin("x", "north")
		f.begin("y", "north")
		time.Sleep(2 * time.Second)
		if err := f.client.Drain(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		f.halt("d")
		id := f.broadcast(push{Work: 10 * time.Second}, engine.BroadcastOptions{})
		north := f.broadcast(push{Work: 10 * time.Second}, engine.BroadcastOptions{Selector: map[string]string{"north": "yes"}})
		time.Sleep(5 * time.Second)
		f.begin("e", "north")
		f.begin("d")
		if err := f.client.Undrain(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		info := f.await(id, time.Minute)
		f.told(info, "succeeded", "a succeeded, b succeeded, x succeeded, y succeeded")
		f.check(info)
		info = f.await(north, time.Minute)
		f.told(info, "succeeded", "x succeeded, y succeeded")
		f.check(info)
	})
}

// A delayed broadcast goes to who is there when it is due.
func TestPartsDelayedMembership(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b")
		id := f.broadcast(push{Work: time.Second}, engine.BroadcastOptions{Delay: 30 * time.Second})
		f.halt("b")
		f.begin("c")
		info := f.await(id, time.Minute)
		f.told(info, "succeeded", "a succeeded, c succeeded")
		f.check(info)
	})
}

// A node drains when it has its part: what runs there comes to its end, what has not
// started waits for it. It is the same node.
func TestPartsWhenANodeDrains(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b", "c")
		f.fill("b", 20*time.Second)
		id := f.broadcast(push{Work: 30 * time.Second}, engine.BroadcastOptions{})
		time.Sleep(5 * time.Second)
		for _, node := range []string{"b", "c"} {
			if err := f.client.Drain(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		if info, err := f.client.GetBroadcast(t.Context(), id); err != nil || tellParts(info) != "a succeeded, b pending, c succeeded" {
			t.Errorf("while b drains: %s, %v", tellParts(info), err)
		}
		if err := f.client.Undrain(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		info := f.await(id, 2*time.Minute)
		f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
		f.check(info)
	})
}

// A node that is stopped as it should be hands its part back, and is gone: that is
// lost, or waits for the node's next process.
func TestPartsWhenANodeStops(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f := newFleet(t, srv, "a", "b")
		fails := f.broadcast(push{Work: time.Minute}, engine.BroadcastOptions{})
		waits := f.broadcast(push{Work: time.Minute}, engine.BroadcastOptions{OnLost: engine.LostWaits, Deadline: time.Hour})
		time.Sleep(5 * time.Second)
		f.halt("b")
		time.Sleep(time.Minute)
		f.begin("b")
		info := f.await(fails, 2*time.Minute)
		f.told(info, "failed", "a succeeded, b lost")
		f.check(info)
		info = f.await(waits, 3*time.Minute)
		f.told(info, "succeeded", "a succeeded, b succeeded")
		f.check(info)
	})
}

// A node loses its lease and is there again, before anybody judged it: its part is its
// own, whether it had claimed it or not.
func TestPartsWhenANodeIsCutOff(t *testing.T) {
	for _, away := range []time.Duration{2 * time.Second, 5 * time.Second, 8 * time.Second, 30 * time.Second} {
		t.Run(away.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				f := newFleet(t, srv, "a", "b", "c")
				f.fill("c", 20*time.Second)
				fails := f.broadcast(push{Work: 30 * time.Second}, engine.BroadcastOptions{Done: engine.DoneAny})
				waits := f.broadcast(push{Work: 30 * time.Second}, engine.BroadcastOptions{OnLost: engine.LostWaits, Deadline: time.Hour})
				time.Sleep(5 * time.Second)
				var back []func()
				for _, node := range []string{"b", "c"} {
					l := f.nodes[node]
					back = append(back, f.cutOff(l, l.p.link.Down, l.p.link.Up))
				}
				time.Sleep(away)
				for _, again := range back {
					again()
				}
				f.check(f.await(fails, 5*time.Minute))
				info := f.await(waits, 5*time.Minute)
				f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
				f.check(info)
			})
		})
	}
}
