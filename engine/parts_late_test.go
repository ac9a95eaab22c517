package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// lateStory is a story of an owner that stands still in the middle of a write, which
// lands when the world has changed.
type lateStory struct {
	nodes []string
	// tell is what happens until the owner stands still, which may be at its end.
	tell func(f *fleet) (id string)
	// meanwhile is what happens then.
	meanwhile func(f *fleet)
	// end is what has to be true in the end.
	end func(f *fleet, info engine.BroadcastInfo)
}

var lateStories = map[string]lateStory{
	"parts": {
		[]string{"a", "b", "c", "d"},
		func(f *fleet) string { return rolls(f, engine.BroadcastOptions{ID: "1", Done: engine.DoneQuorum}) },
		func(f *fleet) { f.begin("d") },
		isRolled,
	},
	"parts that wait": {
		[]string{"a", "b", "c", "d"},
		func(f *fleet) string {
			return rolls(f, engine.BroadcastOptions{ID: "1", OnLost: engine.LostWaits, Deadline: time.Hour})
		},
		func(f *fleet) { f.kill("b"); f.begin("b"); f.begin("d") },
		func(f *fleet, info engine.BroadcastInfo) {
			f.Helper()
			f.check(info)
			f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded, d succeeded")
		},
	},
	"shards": {
		[]string{"a", "b"},
		func(f *fleet) string {
			id := f.shards(push{Work: 2 * time.Second}, engine.ShardOptions{ID: "1", Shards: 4, Delay: time.Second})
			time.Sleep(2 * time.Second)
			f.kill("b")
			return id
		},
		func(f *fleet) { f.begin("b"); f.kill("a"); f.begin("c") },
		isWhole,
	},
}

// rolls is a broadcast that is for later and loses a node.
func rolls(f *fleet, opts engine.BroadcastOptions) string {
	opts.Delay, opts.MaxParallel = time.Second, 2
	id := f.broadcast(push{Work: 2 * time.Second}, opts)
	time.Sleep(3 * time.Second)
	f.kill("d")
	return id
}

// The owner stands still at any of its writes: what it rules on, makes and counts.
// Another one takes over, or none, nodes die and come back, and then the write lands:
// of somebody who has seen other nodes. Nothing runs where it must not, and the job
// ends. With -seeds everything happens at each write, otherwise one thing at each third.
func TestPartsLateWrites(t *testing.T) {
	for name, s := range lateStories {
		t.Run(name, func(t *testing.T) {
			var points []string
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) { points = s.run(t, srv, &fall{}, true) })
			if len(points) < 2 {
				t.Fatalf("the story has the writes %v", points)
			}
			for i, point := range points {
				t.Logf("%2d. %s", i+1, point)
				for n, heir := range []bool{true, false} {
					if *seeds == 0 && i%6 != 3*n {
						continue
					}
					t.Run(fmt.Sprintf("%d %s, another owner %t", i+1, point, heir), func(t *testing.T) {
						natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
							s.run(t, srv, &fall{number: i + 1, fault: natstest.Hold}, heir)
						})
					})
				}
			}
		})
	}
}

func (s lateStory) run(t *testing.T, srv *server.Server, c *fall, heir bool) []string {
	t.Helper()
	c.dead = make(chan struct{})
	f := &fleet{T: t, srv: srv, slots: 2, nodes: map[string]*life{}, redriven: map[string]time.Time{}, owners: true}
	f.crew(s.nodes...)
	var p *process
	p = start(f, srv, "o", func(w natstest.Write) natstest.Fault {
		fault := c.decide(w)
		if fault != natstest.Pass {
			p.link.Freeze()
		}
		return fault
	}, ">")
	serve(f, p.Engine)
	time.Sleep(10 * time.Second)
	c.arm()
	id := s.tell(f)
	meanwhile := s.meanwhile
	for range 2 { // it may stand still only after that
		select {
		case <-c.dead:
			f.stillness(p, heir, meanwhile)
			c.dead = nil
		case <-time.After(time.Minute):
			meanwhile(f)
		}
		meanwhile = func(*fleet) {}
	}
	s.end(f, f.await(id, 3*time.Minute))
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.points
}

// stillness is the time in which the owner stands still, and its end.
func (f *fleet) stillness(p *process, heir bool, meanwhile func(*fleet)) {
	if heir {
		serve(f, start(f, f.srv, "o2", nil).Engine)
	}
	time.Sleep(2 * lease)
	meanwhile(f)
	time.Sleep(2 * lease)
	p.link.Release()
	p.link.Thaw()
}

// A claim lands late: the node that made it was cut off, its part was ruled on, and
// another process is there under its ID.
func TestPartsLateClaim(t *testing.T) {
	for name, opts := range map[string]engine.BroadcastOptions{
		"fail": {}, "wait": {OnLost: engine.LostWaits, Deadline: time.Hour},
	} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, back %t", name, back), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					f := newFleet(t, srv, "a")
					c := &fall{number: 1, fault: natstest.Hold, dead: make(chan struct{})} // the claim
					f.unlucky = func(string) func(natstest.Write) natstest.Fault { return c.decide }
					l := f.begin("b")
					f.unlucky = nil
					time.Sleep(2 * time.Second)
					c.arm()
					id := f.broadcast(push{Work: time.Second}, opts)
					<-c.dead
					l.p.link.Freeze()
					time.Sleep(3 * lease)
					l.p.link.Release()
					l.p.link.Thaw()
					f.mu.Lock()
					l.aways = append(l.aways, away{time.Now().Add(-3 * lease), time.Now()})
					f.mu.Unlock()
					if !back {
						time.Sleep(time.Second)
						f.kill("b")
						f.begin("b")
					}
					info := f.await(id, 3*time.Minute)
					f.check(info)
					if opts.OnLost == engine.LostWaits {
						f.told(info, "succeeded", "a succeeded, b succeeded")
					} else {
						f.told(info, "failed", "a succeeded, b lost")
					}
				})
			})
		}
	}
}
