package e2e_test

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// kind is what a verb is about.
type kind int

const (
	aJob kind = iota
	aSeat
	aWorker // the node in a seat that runs jobs
	aQueue
	aLimit
	aServer
	aLeader    // the server that leads a stream
	allServers // at once
)

// verb is something that a plan may have.
type verb struct {
	name        string
	weight      int
	on          kind
	least, most float64 // leases for which it lasts
	three       bool    // on three servers only
	// do does it, and returns what heals it, if that is needed. That is asked
	// again a second later as long as it returns false.
	do func(m *mix, s step) (heal func() bool)
}

// The names of the verbs that code asks for.
const (
	submit = "submit"
	cut    = "cut"
	drop   = "drop"
	delay  = "delay"
	limit  = "limit"
)

var verbs = []verb{
	// The same node comes back.
	{name: "kill9", weight: 6, on: aSeat, most: 1.6, do: (*mix).kill},
	{name: "term", weight: 4, on: aSeat, most: 0.5, do: (*mix).term},
	// Another node takes the seat at once.
	{name: "replace", weight: 3, on: aSeat, do: (*mix).replace},
	{name: "retire", weight: 3, on: aSeat, do: (*mix).retire},

	{name: "stop", weight: 6, on: aSeat, most: 2.2, do: (*mix).stop},
	{name: "throttle", weight: 2, on: aSeat, least: 0.4, most: 2, do: (*mix).throttle},
	{name: cut, weight: 4, on: aSeat, most: 2.2, do: (*mix).cut},
	{name: drop, weight: 4, on: aSeat, most: 2.2, do: (*mix).drop},
	{name: delay, weight: 3, on: aSeat, least: 0.2, most: 2, do: (*mix).delay},

	{name: "kill9 server", weight: 3, on: aServer, most: 1.8, do: (*mix).killServer},
	{name: "term server", weight: 2, on: aServer, most: 0.5, do: (*mix).termServer},
	{name: "stop server", weight: 2, on: aServer, most: 1.8, do: (*mix).stopServer},
	{name: "cut server", weight: 3, on: aServer, most: 1.8, three: true, do: (*mix).cutServer},
	{name: "kill9 leader", weight: 4, on: aLeader, most: 0.5, three: true, do: (*mix).killLeader},
	{name: "kill9 all servers", weight: 2, on: allServers, most: 1.6, three: true, do: (*mix).killServers},
	{name: "fill", weight: 1, on: allServers, least: 0.1, most: 1, do: (*mix).fill},

	{name: "cancel", weight: 7, on: aJob, do: (*mix).cancel},
	{name: "retry", weight: 4, on: aJob, do: (*mix).retry},
	{name: "read", weight: 7, on: aJob, do: (*mix).read},
	{name: "pause", weight: 3, on: aQueue, least: 0.1, most: 1, do: (*mix).pause},
	{name: "drain", weight: 3, on: aWorker, least: 0.1, most: 1, do: (*mix).drain},
	{name: limit, weight: 3, on: aLimit, least: 0.1, most: 1, do: (*mix).limit},
}

// loads are what a plan submits, at most so many at a time, each about as often
// as the others.
var loads = []cluster.Load{
	{Count: 80, Work: actor.Work{For: 20}},
	{Count: 80, Work: actor.Work{For: 100}},
	{Count: 60, Work: actor.Work{For: 5}},
	{Count: 20, Work: actor.Work{For: 1500}},
	{Count: 3, Work: actor.Work{For: 9000}},
	{Count: 30, Work: actor.Work{For: 50, Fail: 2}},
	{Count: 10, Work: actor.Work{For: 20, Fail: 99}, MaxAttempts: 2},
	{Count: 30, Work: actor.Work{For: 30, Snooze: 2}},
	{Count: 40, Work: actor.Work{For: 100}, Args: []string{"--queue-timeout=8s"}},
	{Count: 3, Work: actor.Work{For: 1000, Burn: true}},
	{Count: 4, Work: actor.Work{For: 5000, Deaf: true}},
	{Count: 1, Work: actor.Work{Stall: true}},
	{Count: 4, Work: actor.Work{For: 100}, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "all"}},
	{Count: 3, Work: actor.Work{For: 700}, Broadcast: &actor.Broadcast{OnLost: "wait", Done: "quorum"}, Deadline: 30 * time.Second},
	{Count: 3, Work: actor.Work{For: 50, Fail: 1}, Broadcast: &actor.Broadcast{OnLost: "fail", Done: "any", MaxParallel: 2}},
	{Count: 4, Work: actor.Work{For: 300}, Shards: 4},
}

// verbOf returns the verb of a step; that of a submission is none of them.
func verbOf(s step) verb {
	for _, v := range verbs {
		if v.name == s.verb {
			return v
		}
	}
	return verb{}
}

// done heals at once.
func done(heal func()) func() bool {
	return func() bool { heal(); return true }
}

func (m *mix) kill(s step) func() bool {
	m.nodes[s.target].Kill()
	return m.back(s.target)
}

func (m *mix) term(s step) func() bool {
	m.nodes[s.target].Term()
	return m.back(s.target)
}

// impatience is how often who waits for the end of a process that drains looks,
// before it asks once more, which ends the handlers.
const impatience = 8

// back starts what sits in a seat again, when it has ended.
func (m *mix) back(seat string) func() bool {
	n, looks := m.nodes[seat], 0
	m.away[seat] = true
	return func() bool {
		if looks++; n.Alive() {
			if looks == impatience {
				n.Term()
			}
			return false
		}
		n.Start()
		m.away[seat] = false
		return true
	}
}

func (m *mix) replace(s step) func() bool {
	m.nodes[s.target].Kill()
	m.sit(s.target)
	return nil
}

func (m *mix) retire(s step) func() bool {
	m.nodes[s.target].Term()
	m.sit(s.target)
	return nil
}

func (m *mix) stop(s step) func() bool {
	n := m.nodes[s.target]
	n.Stop()
	return done(n.Cont)
}

func (m *mix) throttle(s step) func() bool {
	return done(m.nodes[s.target].Throttle(0.2))
}

func (m *mix) cut(s step) func() bool {
	n := m.nodes[s.target]
	n.Cut(m.peers(s)...)
	return done(n.HealLinks)
}

func (m *mix) drop(s step) func() bool {
	n := m.nodes[s.target]
	n.Drop(m.peers(s)...)
	return done(n.HealLinks)
}

func (m *mix) delay(s step) func() bool {
	n := m.nodes[s.target]
	n.Delay(time.Duration(s.count)*time.Millisecond, m.peers(s)...)
	return done(n.HealLinks)
}

// peers are the servers to which a step's links lead, none for all.
func (m *mix) peers(s step) []*cluster.Server {
	if s.peer == 0 {
		return nil
	}
	return []*cluster.Server{m.c.Server(s.peer)}
}

// server is the server n1, n2 or n3.
func (m *mix) server(s step) *cluster.Server {
	var i int
	if _, err := fmt.Sscanf(s.target, "n%d", &i); err != nil {
		m.t.Fatalf("step %s: %v", s, err)
	}
	return m.c.Server(i)
}

func (m *mix) killServer(s step) func() bool {
	n := m.server(s)
	n.Kill()
	return done(n.Start)
}

func (m *mix) termServer(s step) func() bool {
	n := m.server(s)
	n.Term()
	return func() bool {
		if n.Alive() {
			return false
		}
		n.Start()
		return true
	}
}

func (m *mix) stopServer(s step) func() bool {
	n := m.server(s)
	n.Stop()
	return done(n.Cont)
}

func (m *mix) cutServer(s step) func() bool {
	n := m.server(s)
	n.Cut()
	return done(n.HealLinks)
}

func (m *mix) killLeader(s step) func() bool {
	n := m.c.Leader(s.target)
	if n == nil {
		return nil // between two leaders
	}
	n.Kill()
	return done(n.Start)
}

func (m *mix) killServers(step) func() bool {
	m.c.KillServers()
	return done(m.c.StartServers)
}

func (m *mix) fill(step) func() bool {
	m.c.Settle() // the servers may still be electing
	m.c.Fill()
	return done(m.c.Free)
}

func (m *mix) cancel(s step) func() bool {
	m.call(s.target, func() error { return m.c.Cancel(s.target) })
	return nil
}

func (m *mix) retry(s step) func() bool {
	m.call(s.target, func() error { return m.c.Retry(s.target) })
	return nil
}

func (m *mix) read(s step) func() bool {
	m.call("read "+s.target, func() error { m.c.Read(s.target); return nil })
	return nil
}

func (m *mix) pause(s step) func() bool {
	m.call(s.target, func() error { return m.c.Pause(s.target) })
	return m.later(s.target, func() error { return m.c.Resume(s.target) })
}

func (m *mix) drain(s step) func() bool {
	node := m.ids[s.target]
	m.call(node, func() error { return m.c.Drain(node) })
	return m.later(node, func() error { return m.c.Undrain(node) })
}

func (m *mix) limit(s step) func() bool {
	m.call(s.target, func() error { return m.c.Limit(s.target, s.count) })
	return m.later(s.target, func() error { return m.c.Limit(s.target, 0) })
}

// later calls when the time has come.
func (m *mix) later(about string, ask func() error) func() bool {
	return done(func() { m.call(about, ask) })
}
