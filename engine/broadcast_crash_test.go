package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// fall is what happens to the writes of one process: all pass until one, at which it
// dies, or whose answer it does not get.
type fall struct {
	number int // of the write, or 0
	fault  natstest.Fault

	mu     sync.Mutex
	armed  bool
	points []string      // the writes, by name
	dead   chan struct{} // closed when the process has died
}

func (c *fall) decide(w natstest.Write) natstest.Fault {
	point := partPoint(w)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed || point == "" {
		return natstest.Pass
	}
	c.points = append(c.points, point)
	if len(c.points) != c.number {
		return natstest.Pass
	}
	fault := c.fault
	if w.Reply == "" && fault != natstest.Hold { // nobody waits for an answer
		fault = natstest.DownBefore
	}
	if fault != natstest.LoseAnswer {
		close(c.dead)
	}
	return fault
}

func (c *fall) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = true
}

// partPoint names a write for a part, a shard, or whom they belong to.
func partPoint(w natstest.Write) string {
	switch s := w.Subject; {
	case strings.HasPrefix(s, "mr.default.mail."):
		return "mail"
	case s == "mr.default.ctl.owner.part":
		return "count"
	case strings.HasPrefix(s, "$JS.API.STREAM.MSG.DELETE.mr_default_mail"):
		return "deletion of the mail"
	}
	return pointOf(w)
}

// fallStory is a story with a process that falls.
type fallStory struct {
	// tell starts the fleet with the process that falls, lets it live, and returns the
	// job that is looked at. It is not over then.
	tell func(f *fleet, c *fall) (id string)
	// end is what has to be true in the end.
	end func(f *fleet, info engine.BroadcastInfo)
}

var fallStories = map[string]fallStory{
	"a node, lost":            {nodeFalls(engine.BroadcastOptions{ID: "1", MaxAttempts: 2}), isLostOrDone},
	"a node that is awaited":  {nodeFalls(engine.BroadcastOptions{ID: "1", MaxAttempts: 2, OnLost: engine.LostWaits, Deadline: time.Hour}), isDone},
	"who submits":             {submitterFalls, isDone},
	"who submits pieces":      {sharderFalls, isWhole},
	"the owner":               {ownerFalls, isRolled},
	"the owner, with a place": {placerFalls, isWhole},
}

// Whatever write a process dies at, which has to do with a broadcast or a sharded job,
// and whatever answer it does not get: each part runs where it has to, each shard is
// accepted once, and the job ends. With -seeds everything happens at each write,
// otherwise one thing.
func TestPartsCrashPoints(t *testing.T) {
	for name, s := range fallStories {
		t.Run(name, func(t *testing.T) {
			var points []string
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) { points = s.run(t, srv, &fall{}) })
			if len(points) < 2 {
				t.Fatalf("the story has the writes %v", points)
			}
			for i, point := range points {
				t.Logf("%2d. %s", i+1, point)
				faults := []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer}
				if point == "count" || point == "announcement" {
					faults = faults[:1] // nobody waits for an answer
				}
				if *seeds == 0 {
					faults = faults[i%len(faults):][:1]
				}
				for _, fault := range faults {
					t.Run(fmt.Sprintf("%d %s %s", i+1, point, fault), func(t *testing.T) {
						natstest.Bubble(t, func(t *testing.T, srv *server.Server) { s.run(t, srv, &fall{number: i + 1, fault: fault}) })
					})
				}
			}
		})
	}
}

func (s fallStory) run(t *testing.T, srv *server.Server, c *fall) []string {
	t.Helper()
	c.dead = make(chan struct{})
	f := &fleet{T: t, srv: srv, slots: 2, nodes: map[string]*life{}, redriven: map[string]time.Time{}}
	id := s.tell(f, c)
	s.end(f, f.await(id, 3*time.Minute))
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.points
}

// nodeFalls is a node that dies with its part, which fails once, and comes back.
func nodeFalls(opts engine.BroadcastOptions) func(f *fleet, c *fall) string {
	return func(f *fleet, c *fall) string {
		f.unlucky = func(node string) func(natstest.Write) natstest.Fault {
			if node == "c" {
				return c.decide
			}
			return nil
		}
		f.open("a", "b", "c")
		f.unlucky = nil
		c.arm()
		id := f.broadcast(push{Work: 2 * time.Second, Fails: map[string]int{"c": 1}}, opts)
		f.buryAt(c, "c", 20*time.Second)
		return id
	}
}

// buryAt waits until a node has fallen, or has had the time to, and starts another
// process in its place, after a while.
func (f *fleet) buryAt(c *fall, node string, within time.Duration) {
	select {
	case <-c.dead:
		f.kill(node)
		time.Sleep(20 * time.Second)
		f.begin(node)
	case <-time.After(within):
	}
}

func isLostOrDone(f *fleet, info engine.BroadcastInfo) {
	f.Helper()
	f.check(info)
	if info.State == "succeeded" {
		f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
		return
	}
	f.told(info, "failed", "a succeeded, b succeeded, c lost")
}

func isDone(f *fleet, info engine.BroadcastInfo) {
	f.Helper()
	f.check(info)
	f.told(info, "succeeded", "a succeeded, b succeeded, c succeeded")
}

func isWhole(f *fleet, info engine.BroadcastInfo) {
	f.Helper()
	f.checkShards(info)
}

// falling starts a process that falls.
func (f *fleet) falling(node string, c *fall) *process {
	p := start(f, f.srv, node, c.decide, ">")
	c.arm()
	return p
}

// submitterFalls is whoever submits a broadcast dying in the middle of that. If that
// was too early, somebody else does.
func submitterFalls(f *fleet, c *fall) string {
	f.open("a", "b", "c")
	p := f.falling("s", c)
	f.orFalls(c, func(ctx context.Context) error {
		_, err := f.job(nil).Broadcast(ctx, p.Engine, push{Work: 2 * time.Second}, engine.BroadcastOptions{ID: "1"})
		return err
	})
	return f.orAgain("site.1", func() string { return f.broadcast(push{Work: 2 * time.Second}, engine.BroadcastOptions{ID: "1"}) })
}

func sharderFalls(f *fleet, c *fall) string {
	f.open("a", "b")
	p := f.falling("s", c)
	opts := engine.ShardOptions{ID: "1", Shards: 3}
	f.orFalls(c, func(ctx context.Context) error {
		_, err := f.job(nil).SubmitShards(ctx, p.Engine, push{Work: 2 * time.Second}, opts)
		return err
	})
	return f.orAgain("site.1", func() string { return f.shards(push{Work: 2 * time.Second}, opts) })
}

// orFalls does something as a process, which may die in it.
func (f *fleet) orFalls(c *fall, do func(context.Context) error) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	select {
	case <-c.dead:
		cancel()
		<-done
	case err := <-done:
		if err != nil {
			f.Errorf("nobody died, and it said: %v", err)
		}
	}
}

// orAgain does something again if it was not done.
func (f *fleet) orAgain(id string, again func() string) string {
	f.Helper()
	time.Sleep(10 * time.Second)
	if _, err := f.client.Get(f.Context(), id); errors.Is(err, engine.ErrNotFound) {
		return again()
	}
	return id
}

// serving starts an owner that falls, and then another one.
func (f *fleet) serving(c *fall, story func() string) string {
	p := start(f, f.srv, "o", c.decide, ">")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Serve(ctx) }()
	f.Cleanup(func() { cancel(); <-done })
	time.Sleep(10 * time.Second)
	c.arm()
	id := story()
	select {
	case <-c.dead:
		time.Sleep(2 * time.Second)
	case <-time.After(time.Minute):
	}
	serve(f, start(f, f.srv, "o2", nil).Engine)
	return id
}

// ownerFalls is the owner of a broadcast that is for later, rolls, and loses a node.
func ownerFalls(f *fleet, c *fall) string {
	f.owners = true
	f.crew("a", "b", "c", "d")
	return f.serving(c, func() string {
		id := f.broadcast(push{Work: 2 * time.Second}, engine.BroadcastOptions{
			ID: "1", Delay: time.Second, MaxParallel: 2, Done: engine.DoneQuorum,
		})
		time.Sleep(3 * time.Second)
		f.kill("d")
		return id
	})
}

// crew starts nodes that do not stand for owner, and a client that does not serve.
func (f *fleet) crew(ids ...string) {
	f.open()
	f.owners = false
	for _, id := range ids {
		f.begin(id)
	}
}

func isRolled(f *fleet, info engine.BroadcastInfo) {
	f.Helper()
	f.check(info)
	for _, p := range info.Parts {
		if p.Node != "d" && p.State != "succeeded" {
			f.Errorf("the part of %s is %s", p.Node, p.State)
		}
	}
	if info.State != "succeeded" {
		f.Errorf("it is %s: %s", info.State, tellParts(info))
	}
}

// placerFalls is the owner that has to find another place for shards.
func placerFalls(f *fleet, c *fall) string {
	f.owners = true
	f.crew("a", "b")
	return f.serving(c, func() string {
		id := f.shards(push{Work: 2 * time.Second}, engine.ShardOptions{ID: "1", Shards: 4, Delay: time.Second})
		time.Sleep(2 * time.Second)
		f.kill("b")
		return id
	})
}
