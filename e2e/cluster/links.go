package cluster

import (
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/proxy"
)

// nowhere is what servers tell each other of where they are. A server takes the
// port for its own and does not dial it, so that the links of servers are those
// in their files, through proxies, and no others.
const nowhere = "127.0.0.1:1"

// pair is who dials, and the server that is dialled, by name.
type pair struct{ from, to string }

// links are the proxies of a cluster: one for each process and server, and two
// for each pair of servers, which dial each other.
type links struct {
	mu     sync.Mutex
	byPair map[pair]*proxy.Link
}

// link returns the link of a process to a server, in all lives of both, which
// goes to target. It is made when it is first asked for.
func (c *Cluster) link(from string, s *Server, target string) *proxy.Link {
	c.t.Helper()
	c.links.mu.Lock()
	defer c.links.mu.Unlock()
	at := pair{from, s.name}
	if l := c.links.byPair[at]; l != nil {
		return l
	}
	l, err := proxy.Listen(target)
	if err != nil {
		c.t.Fatalf("cluster: link %s to %s: %v", from, s.name, err)
	}
	if c.links.byPair == nil {
		c.links.byPair = map[pair]*proxy.Link{}
	}
	c.links.byPair[at] = l
	return l
}

// close closes all links.
func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range l.byPair {
		link.Close()
	}
}

// Cut closes the links to servers, to all if none are named; new connections are
// refused. Whatever happens to links outlives the process, until HealLinks.
func (n *Node) Cut(to ...*Server) {
	n.c.t.Helper()
	n.spoil(ledger.Cut, to, (*proxy.Link).Cut)
}

// Drop lets nothing pass on the links to servers, of all if none are named.
// Connections stay open: those at both ends have to find out themselves.
func (n *Node) Drop(to ...*Server) {
	n.c.t.Helper()
	n.spoil(ledger.Drop, to, (*proxy.Link).Drop)
}

// Delay lets everything pass d later on the links to servers, of all if none are
// named, in each direction.
func (n *Node) Delay(d time.Duration, to ...*Server) {
	n.c.t.Helper()
	n.spoil(ledger.Delay, to, func(l *proxy.Link) { l.Delay(d) })
}

// HealLinks makes all links of the process as good as new.
func (n *Node) HealLinks() {
	n.c.t.Helper()
	for _, s := range n.c.servers {
		n.c.link(n.name, s, s.client).Heal()
	}
	n.healed()
}

// spoil does something to the links to servers. A fault of all of them is one
// entry, without a peer.
func (n *Node) spoil(verb string, to []*Server, do func(*proxy.Link)) {
	n.c.t.Helper()
	if len(to) == 0 {
		to = n.c.servers
		n.suffer(ledger.Entry{Verb: verb})
	} else {
		for _, s := range to {
			n.suffer(ledger.Entry{Verb: verb, Peer: s.name})
		}
	}
	for _, s := range to {
		do(n.c.link(n.name, s, s.client))
	}
}

// Cut closes the links between the server and others, all others if none are
// named. Its clients keep theirs.
func (s *Server) Cut(others ...*Server) {
	s.c.t.Helper()
	if len(others) == 0 {
		others = s.others()
	}
	for _, other := range others {
		s.suffer(ledger.Entry{Verb: ledger.Cut, Peer: other.name})
		s.routeTo(other).Cut()
		other.routeTo(s).Cut()
	}
}

// HealLinks makes all links between the server and others as good as new, also
// those that another one has cut.
func (s *Server) HealLinks() {
	s.c.t.Helper()
	for _, other := range s.others() {
		s.routeTo(other).Heal()
		other.routeTo(s).Heal()
		other.healed(s.name)
	}
	s.healed()
}

// others are all servers but s.
func (s *Server) others() []*Server {
	return slices.DeleteFunc(slices.Clone(s.c.servers), func(other *Server) bool { return other == s })
}

// routeTo is the link through which s dials another server.
func (s *Server) routeTo(other *Server) *proxy.Link {
	s.c.t.Helper()
	return s.c.link(s.name, other, other.route)
}
