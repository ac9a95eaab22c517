package intake_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

var mailSeeds = flag.Int("mail.seeds", 12, "how many random programs TestMailRandom runs")

// A random program offers items to three nodes, while connections break, servers and
// processes start anew, queues are shut, and what is taken ends in all ways that there
// are. Each node takes its items, in the end all of them, and none that it has.
func TestMailRandom(t *testing.T) {
	for seed := range uint64(*mailSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, _ *server.Server) { newProgram(t, seed).run() })
		})
	}
}

// program is one random program.
type program struct {
	*world
	rng   *rand.Rand
	dir   string
	srv   *server.Server
	links []*natstest.Link
	offer *streams.Work
	nodes []*worker

	offered map[string]string // the node of each job
}

// worker is a node that checks what it is given.
type worker struct {
	*post
	program *program
	gates   map[string]*gate
	ready   *gate

	mu    sync.Mutex
	rng   *rand.Rand
	hand  map[uint64]bool // what it has
	acked map[uint64]bool // what it has acknowledged
	jobs  map[string]bool // what it had
	lazy  bool            // it may still let items lie
}

func newProgram(t *testing.T, seed uint64) *program {
	p := &program{rng: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), offered: map[string]string{}}
	p.srv = natstest.Start(t, p.dir)
	p.world = newWorld(t, p.srv)
	p.offer = p.over(p.link())
	for i := range 3 {
		n := &worker{
			program: p, gates: map[string]*gate{"mail": newGate(), "post": newGate()}, ready: newGate(),
			rng: rand.New(rand.NewPCG(seed, uint64(i+2))), acked: map[uint64]bool{}, jobs: map[string]bool{}, lazy: true,
		}
		link := p.link()
		n.start(fmt.Sprint("n", i), link)
		p.nodes = append(p.nodes, n)
	}
	return p
}

func (p *program) link() *natstest.Link {
	link := natstest.NewLink(p, p.srv, nil, subjects)
	p.links = append(p.links, link)
	return link
}

// start starts the process of a node, which has nothing in hand.
func (n *worker) start(node string, link *natstest.Link) {
	n.hand = map[uint64]bool{}
	n.post = n.program.post(node, postOptions{
		queues: []string{"mail", "post"}, slots: 1 + n.program.rng.IntN(4), over: link, work: n.work,
		gate:  func(queue string) (bool, <-chan struct{}) { return n.gates[queue].gate(queue) },
		ready: func() bool { open, _ := n.ready.gate(""); return open },
	})
}

// work is what becomes of an item.
func (n *worker) work(t *intake.Taken) {
	took, end := n.begin(t)
	for ; took > 0; took -= lease / 3 {
		time.Sleep(min(took, lease/3))
		_ = t.Progress()
	}
	if end%2 == 0 {
		t.Free() // the outcome is still to be stored
		time.Sleep(time.Second)
	}
	n.mu.Lock()
	delete(n.hand, t.Sequence)
	n.mu.Unlock()
	switch {
	case end < 6:
		if t.Ack() == nil {
			n.mu.Lock()
			n.acked[t.Sequence] = true
			n.mu.Unlock()
		}
	case end < 9:
		_ = t.Nak(time.Duration(end-6) * 3 * time.Second)
	}
}

// begin checks what is given to the node, and says for how long it has it, and how
// that ends.
func (n *worker) begin(t *intake.Taken) (took time.Duration, end int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	job := t.Queue + "." + t.Local
	if !strings.HasSuffix(job, "-"+n.node) || t.Node != n.node {
		n.Errorf("%s was given %s, which is for %s", n.node, job, t.Node)
	}
	if n.hand[t.Sequence] || n.acked[t.Sequence] {
		n.Errorf("%s was given %s again, which it has: %v, or is done with: %v", n.node, job, n.hand[t.Sequence], n.acked[t.Sequence])
	}
	n.hand[t.Sequence], n.jobs[job] = true, true
	if !n.lazy {
		return time.Millisecond, 0
	}
	return time.Duration(n.rng.IntN(8000)) * time.Millisecond, n.rng.IntN(10)
}

func (p *program) run() {
	for range 150 {
		p.step()
		time.Sleep(time.Duration(p.rng.IntN(1000)) * time.Millisecond)
	}
	for _, link := range p.links {
		link.Up()
	}
	for _, n := range p.nodes {
		n.mu.Lock()
		n.lazy = false
		n.mu.Unlock()
		n.ready.set(true)
		n.gates["mail"].set(true)
		n.gates["post"].set(true)
	}
	time.Sleep(3 * time.Minute)
	for job, node := range p.offered {
		i := slices.IndexFunc(p.nodes, func(n *worker) bool { return n.node == node })
		if n := p.nodes[i]; !n.jobs[job] {
			p.Errorf("%s never got %s", node, job)
		}
	}
	p.ends()
}

// ends fails the test if something is left.
func (p *program) ends() {
	box := func(node, queue string) {
		_, _, err := p.offer.Mailbox(node, queue, nil).Look(p.Context(), 0, 100, func(d *streams.Delivery, _ error) {
			p.Errorf("%s.%s is left for %s", d.Queue, d.Local, node)
		})
		if err != nil {
			p.Error(err)
		}
	}
	for _, n := range p.nodes {
		box(n.node, "mail")
		box(n.node, "post")
		if free, most := n.in.Free(), 4; free < 1 || free > most {
			p.Errorf("%s has %d free slots", n.node, free)
		}
		n.stop()
	}
	for _, link := range p.links {
		link.Down()
	}
}

// step does something at random.
func (p *program) step() {
	n, link := p.nodes[p.rng.IntN(3)], p.links[p.rng.IntN(len(p.links))]
	queue := []string{"mail", "post"}[p.rng.IntN(2)]
	switch p.rng.IntN(16) {
	default:
		p.offerSome(n.node, queue)
	case 0:
		link.Cut()
	case 1:
		link.Down()
	case 2, 3, 4:
		for _, link := range p.links {
			link.Up()
		}
	case 5:
		n.gates[queue].set(false)
	case 6, 7:
		n.gates[queue].set(true)
	case 8:
		n.ready.set(false)
	case 9, 10:
		n.ready.set(true)
	case 11:
		n.in.Look()
	case 12:
		p.restart(n)
	case 13:
		p.restartServer()
	}
}

// restartServer starts the server again.
func (p *program) restartServer() {
	natstest.Stop(p.srv, p.links...)
	time.Sleep(time.Duration(p.rng.IntN(5000)) * time.Millisecond)
	p.srv = natstest.Start(p, p.dir)
	for _, link := range p.links {
		link.Reroute(p.srv)
	}
}

// restart starts the process of a node again, which takes until its work is done.
func (p *program) restart(n *worker) {
	i := slices.Index(p.nodes, n)
	n.stop()
	p.links[i+1].Up()
	n.start(n.node, p.links[i+1])
}

// offerSome offers new jobs, and one of those before again.
func (p *program) offerSome(node, queue string) {
	ctx, cancel := context.WithTimeout(p.Context(), time.Second)
	defer cancel()
	for i := range p.rng.IntN(10) {
		job := fmt.Sprintf("%d-%s", len(p.offered), node)
		if i == 0 && len(p.offered) > 0 {
			job = fmt.Sprintf("%d-%s", p.rng.IntN(len(p.offered)), node)
		}
		err := p.offer.Offer(ctx, streams.Item{Queue: queue, Local: job, Node: node, Revision: 1})
		if err == nil {
			p.offered[queue+"."+job] = node
		}
	}
}
