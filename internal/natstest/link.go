package natstest

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Fault is what happens to one write.
type Fault int

const (
	// Pass lets the write through, and its answer too.
	Pass Fault = iota
	// CutBefore cuts the connection; the write never reaches the server.
	CutBefore
	// LoseAnswer lets the server store the write and drops its answer. The
	// connection stays, so the client times out.
	LoseAnswer
	// CutAfter lets the server store the write and cuts the connection in place
	// of the answer. Nothing that the client sent after this write arrives.
	CutAfter
	// Hold keeps the write back until [Link.Release]: one that lands after its
	// time-out, on a connection that never broke. What follows it passes.
	Hold
	// DownBefore is CutBefore for all connections, which stay cut until
	// [Link.Up]: the process died just before the write.
	DownBefore
	// DownAfter is CutAfter for all connections, which stay cut until
	// [Link.Up]: the process died with the write stored.
	DownAfter
)

// String returns the name of f.
func (f Fault) String() string {
	return [...]string{"pass", "cut before", "lose answer", "cut after", "hold", "down before", "down after"}[f]
}

// before reports whether f keeps the write from the server for ever.
func (f Fault) before() bool { return f == CutBefore || f == DownBefore }

// after reports whether f cuts when the answer comes.
func (f Fault) after() bool { return f == CutAfter || f == DownAfter }

// down reports whether f refuses the connections that follow.
func (f Fault) down() bool { return f == DownBefore || f == DownAfter }

// Write is a message that a client published through a [Link].
type Write struct {
	Number  int // counts the writes of a link, from 1
	Subject string
	Reply   string // where the answer goes; empty if none is wanted
	Header  nats.Header
	Data    []byte
	Fault   Fault // what was decided
}

// Link is a path between clients and a server, in process, that a test can
// break at each single write. It stands for the network of one process. It works
// in a bubble.
type Link struct {
	t        testing.TB
	decide   func(Write) Fault
	subjects []string
	pipes    sync.WaitGroup

	deciding sync.Mutex // held while decide is called; taken before mu

	mu     sync.Mutex
	srv    *server.Server
	down   bool
	frozen bool
	pairs  map[*pair]bool
	writes []Write
	held   []*nats.Msg
}

// NewLink returns a link to srv that lasts until the test ends. A write is a
// message that a client publishes on one of subjects, which may have wildcards;
// everything else passes and is not counted. The link numbers the writes and
// calls decide for one after the other; nil lets all of them pass. Decide must
// not block. It may call the methods of the link but [Link.Release].
func NewLink(t testing.TB, srv *server.Server, decide func(Write) Fault, subjects ...string) *Link {
	t.Helper()
	if len(subjects) == 0 {
		t.Fatal("natstest: make link: no subjects; name those whose writes count, such as $KV.>")
	}
	if decide == nil {
		decide = func(Write) Fault { return Pass }
	}
	l := &Link{t: t, srv: srv, decide: decide, subjects: subjects, pairs: map[*pair]bool{}}
	t.Cleanup(func() {
		pairs := l.takeDown()
		l.Thaw()
		for _, p := range pairs {
			p.client.Close()
		}
		l.pipes.Wait()
	})
	return l
}

// Connect is like the function [Connect], through the link.
func (l *Link) Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return dial(t, "", append([]nats.Option{nats.InProcessServer(l)}, opts...))
}

// InProcessConn makes a link a place to connect to, see [nats.InProcessServer].
func (l *Link) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.down:
		return nil, errors.New("natstest: connect: the link is down")
	case l.srv == nil:
		return nil, errors.New("natstest: connect: the link leads nowhere")
	case l.frozen: // a client waits for its server with a lock in its hand, which would stop a virtual clock
		return nil, errors.New("natstest: connect: the link is frozen")
	}
	remote, err := l.srv.InProcessConn()
	if err != nil {
		return nil, err
	}
	local, client := net.Pipe()
	p := &pair{link: l, client: local, server: remote, requests: newOutbox(), answers: newOutbox()}
	l.pairs[p] = true
	for _, pump := range []func(){p.fromClient, p.toServer, p.fromServer, p.toClient} {
		l.pipes.Go(pump)
	}
	return client, nil
}

// Writes returns the writes so far, in the order of their numbers.
func (l *Link) Writes() []Write {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

func (l *Link) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.writes)
}

// Cut breaks every connection. Nothing that is sent afterwards on one of them
// reaches the server. Clients may connect again at once.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
}

// Down breaks every connection and refuses new ones until [Link.Up].
func (l *Link) Down() { l.takeDown() }

// Up lets clients connect again after [Link.Down].
func (l *Link) Up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// Freeze stalls every connection without breaking it, until [Link.Thaw]: what
// either side sends waits, as if the process was stopped or the network lost
// every packet. Clients that give up a connection get no other meanwhile.
func (l *Link) Freeze() { l.freeze(true) }

// Thaw delivers what waited since [Link.Freeze], late and in order: writes whose
// clients gave them up long ago, and answers to them.
func (l *Link) Thaw() { l.freeze(false) }

func (l *Link) freeze(frozen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = frozen
	for p := range l.pairs {
		p.freeze(frozen)
	}
}

// Reroute breaks every connection and leads new ones to srv: the server was
// started again, or another one took its place. Nil leads them nowhere.
func (l *Link) Reroute(srv *server.Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.srv = srv
	l.cut()
}

// Release sends the writes that were held to the server, in their order, and
// waits until each has its answer. It does not matter whether the connections
// that they came by still exist; if they do, the answers reach the clients too.
func (l *Link) Release() {
	l.t.Helper()
	l.mu.Lock()
	held, srv := l.held, l.srv
	l.held = nil
	l.mu.Unlock()
	nc := Connect(l.t, srv)
	defer nc.Close()
	for _, m := range held {
		if err := deliver(nc, m); err != nil {
			l.t.Errorf("natstest: release write to %s: %v", m.Subject, err)
		}
	}
}

// deliver publishes m and waits for its answer, or, if it wants none, until the
// server has it.
func deliver(nc *nats.Conn, m *nats.Msg) error {
	if m.Reply == "" {
		if err := nc.PublishMsg(m); err != nil {
			return err
		}
		return nc.FlushTimeout(patience)
	}
	answer, err := nc.SubscribeSync(m.Reply)
	if err != nil {
		return err
	}
	if err := nc.PublishMsg(m); err != nil {
		return err
	}
	_, err = answer.NextMsg(patience)
	return err
}

// judge numbers and records a frame that a client sent, if it is a write, and
// returns what shall happen to it.
func (l *Link) judge(f *frame) Fault {
	matches := func(filter string) bool { return server.SubjectMatchesFilter(f.subject, filter) }
	if f.subject == "" || !slices.ContainsFunc(l.subjects, matches) {
		return Pass
	}
	m, err := f.message()
	if err != nil {
		l.t.Errorf("natstest: judge write to %s: %v", f.subject, err)
		return Pass
	}
	l.deciding.Lock()
	defer l.deciding.Unlock()
	w := Write{Number: l.count() + 1, Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data}
	w.Fault = l.decide(w)
	if w.Reply == "" && (w.Fault == LoseAnswer || w.Fault.after()) {
		l.t.Errorf("natstest: write to %s: cannot %s: it wants no answer", w.Subject, w.Fault)
		w.Fault = Pass
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = append(l.writes, w)
	if w.Fault == Hold {
		l.held = append(l.held, m)
	}
	return w.Fault
}

// takeDown is Down, and returns the connections that it cut.
func (l *Link) takeDown() []*pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	return l.cut()
}

// cut breaks every connection and returns them. The caller holds mu.
func (l *Link) cut() []*pair {
	pairs := slices.Collect(maps.Keys(l.pairs))
	for _, p := range pairs {
		p.cut()
	}
	return pairs
}

// forget drops a connection that is gone.
func (l *Link) forget(p *pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pairs, p)
}
