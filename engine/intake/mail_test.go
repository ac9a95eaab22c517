package intake_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// post is a node with a mailbox, which notes what it takes from there.
type post struct {
	*world
	node string
	in   *intake.Intake
	work func(*intake.Taken) // what becomes of an item
	stop func()

	mu    sync.Mutex
	taken []string
}

// postOptions configures a post. The zero value of a field means its default.
type postOptions struct {
	queues []string // default: mail
	slots  int      // default: 10
	gate   intake.Gate
	ready  func() bool
	over   *natstest.Link // default: the connection of the world
	// work is what becomes of an item. Default: it is acknowledged at once.
	work func(*intake.Taken)
}

// post runs an intake with a mailbox until the test ends, or stop is called.
func (w *world) post(node string, o postOptions) *post {
	w.Helper()
	if o.queues == nil {
		o.queues = []string{"mail"}
	}
	if o.slots == 0 {
		o.slots = 10
	}
	if o.ready == nil {
		o.ready = func() bool { return true }
	}
	if o.gate == nil {
		o.gate = newGate().gate
	}
	p, work := &post{world: w, node: node, work: o.work}, w.work
	if o.over != nil {
		work = w.over(o.over)
	}
	var working sync.WaitGroup
	p.in = intake.New(work, intake.Options{
		Queues: o.queues, Mailbox: node, Slots: o.slots, Ready: o.ready, Gates: []intake.Gate{o.gate},
		Shape:  func(context.Context, string) (streams.Shape, error) { return w.shape, nil },
		Logger: slog.New(slog.DiscardHandler),
		Take: func(_ context.Context, t *intake.Taken, err error) {
			if err != nil {
				w.Error(err)
			}
			working.Go(func() { p.take(t) })
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	working.Go(func() {
		if err := p.in.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	p.stop = sync.OnceFunc(func() { cancel(); working.Wait() })
	w.Cleanup(p.stop)
	return p
}

// over returns the work queue over a connection of its own.
func (w *world) over(link *natstest.Link) *streams.Work {
	w.Helper()
	pub, err := publish.New(link.Connect(w))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(pub.Close)
	work, err := streams.NewWork(ns, pub)
	if err != nil {
		w.Fatal(err)
	}
	return work
}

// take notes an item, and lets it be worked on.
func (p *post) take(t *intake.Taken) {
	defer t.Free()
	p.mu.Lock()
	p.taken = append(p.taken, t.Queue+"."+t.Local)
	p.mu.Unlock()
	if p.work != nil {
		p.work(t)
	} else if err := t.Ack(); err != nil {
		p.Error(err)
	}
}

// took returns what was taken since it was asked last, sorted.
func (p *post) took() []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.taken
	p.taken = nil
	slices.Sort(taken)
	return taken
}

// expect fails the test unless a node has taken some items, and no others.
func (w *world) expect(p *post, want ...string) {
	w.Helper()
	if got := p.took(); !slices.Equal(got, want) {
		w.Errorf("%s took %v, want %v", p.node, got, want)
	}
}

// mail puts items into the mailbox of a node.
func (w *world) mail(node string, ids ...string) {
	w.Helper()
	for _, id := range ids {
		queue, local, _ := strings.Cut(id, ".")
		if err := w.work.Offer(w.Context(), streams.Item{Queue: queue, Local: local, Node: node, Revision: 1}); err != nil {
			w.Fatal(err)
		}
	}
}

// mails returns how many items lie in all mailboxes.
func (w *world) mails() int {
	w.Helper()
	stream, err := w.js().Stream(w.Context(), ns.MailStream())
	if err != nil {
		w.Fatal(err)
	}
	return int(stream.CachedInfo().State.Msgs)
}

// Each node takes what is for it, of the queues that it has, and nothing is left.
func TestMail(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		w.mail("n1", "mail.before")
		n1, n2 := w.post("n1", postOptions{}), w.post("n2", postOptions{queues: []string{"mail", "post"}})
		time.Sleep(time.Second)
		w.expect(n1, "mail.before")
		w.mail("n1", "mail.a", "mail.b", "post.c")
		w.mail("n2", "mail.d", "post.e")
		w.mail("n3", "mail.f")
		time.Sleep(100 * time.Millisecond)
		w.expect(n1, "mail.a", "mail.b")
		w.expect(n2, "mail.d", "post.e")
		time.Sleep(10 * time.Minute)
		w.expect(n1)
		w.expect(n2)
		if left := w.mails(); left != 2 {
			t.Errorf("%d items are left, want post.c and mail.f", left)
		}
	})
}

// highest is how many there were at once, at most.
type highest struct {
	mu     sync.Mutex
	now, n int
}

// enter notes one more, until leave is called.
func (h *highest) enter() (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	h.n = max(h.n, h.now)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.now--
	}
}
