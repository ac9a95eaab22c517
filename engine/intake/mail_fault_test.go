package intake_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/natstest"
)

// subjects are those that a link has to be told.
const subjects = "mr.>"

// A ring that the server never sent is made up for: within half a minute, or at once
// if somebody asks.
func TestMailWithoutRings(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		p := w.post("n1", postOptions{queues: []string{"mail", "post"}})
		time.Sleep(time.Minute)
		stream, err := w.js().Stream(t.Context(), ns.MailStream())
		if err != nil {
			t.Fatal(err)
		}
		config := stream.CachedInfo().Config
		config.RePublish = nil
		if _, err := w.js().UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		w.mail("n1", "mail.a", "post.b")
		time.Sleep(time.Millisecond)
		w.expect(p)
		p.in.Look()
		time.Sleep(time.Millisecond)
		w.expect(p, "mail.a", "post.b")
		for range 3 {
			w.mail("n1", "mail.c", "post.d")
			time.Sleep(30 * time.Second)
			w.expect(p, "mail.c", "post.d")
		}
	})
}

// What was stored while a node was cut off is taken when it is back.
func TestMailAfterCut(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		link := natstest.NewLink(t, srv, nil, subjects)
		p := w.post("n1", postOptions{over: link})
		for _, away := range []time.Duration{0, time.Second, time.Hour} {
			time.Sleep(time.Minute)
			link.Down()
			w.mail("n1", "mail.a")
			time.Sleep(away)
			w.expect(p)
			link.Up()
			time.Sleep(5 * time.Second)
			w.expect(p, "mail.a")
		}
	})
}

// A server that is started again rings nobody for what it has, and is asked.
func TestMailAfterRestart(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		dir := t.TempDir()
		srv := natstest.Start(t, dir)
		link := natstest.NewLink(t, srv, nil, subjects)
		setter := newWorld(t, srv)
		p := setter.post("n1", postOptions{over: link, slots: 1, work: func(t *intake.Taken) {
			time.Sleep(time.Second) // the server may be away then
			_ = t.Ack()
		}})
		time.Sleep(time.Minute)
		setter.mail("n1", "mail.a", "mail.b", "mail.c")
		time.Sleep(100 * time.Millisecond)
		setter.expect(p, "mail.a")
		setter.pub.Conn().Close()
		natstest.Stop(srv, link)
		time.Sleep(10 * time.Second)
		again := natstest.Start(t, dir)
		link.Reroute(again)
		time.Sleep(5 * time.Second)
		got := p.took()
		if !slices.Contains(got, "mail.b") || !slices.Contains(got, "mail.c") {
			t.Errorf("after the restart it took %v", got)
		}
		time.Sleep(time.Minute)
		p.took()
		w := newWorld(t, again)
		if left := w.mails(); left != 0 {
			t.Errorf("%d items are left", left)
		}
		p.stop()
	})
}

// However often it is looked, an item that is in hand is not given again; one of which
// nothing was heard for a lease is.
func TestMailInHand(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		p := w.post("n1", postOptions{work: func(t *intake.Taken) {
			t.Free() // as who has the outcome to store
			switch t.Local {
			case "kept":
				for range 10 {
					time.Sleep(lease / 3)
					_ = t.Progress()
				}
				_ = t.Ack()
				_ = t.Progress() // too late
			case "left":
				_ = t.Nak(20 * time.Second)
			}
		}})
		w.mail("n1", "mail.forgotten", "mail.kept", "mail.left")
		looks := func(d time.Duration) {
			for range d / time.Second {
				p.in.Look()
				time.Sleep(time.Second)
			}
		}
		looks(lease - time.Second)
		w.expect(p, "mail.forgotten", "mail.kept", "mail.left")
		looks(2 * time.Second)
		w.expect(p, "mail.forgotten")
		looks(13 * time.Second)
		w.expect(p, "mail.forgotten", "mail.forgotten", "mail.left")
		time.Sleep(time.Minute) // nobody asks it to look
		got := p.took()
		if left, forgotten := count(got, "mail.left"), count(got, "mail.forgotten"); left != 3 || forgotten < 9 || count(got, "mail.kept") > 0 {
			t.Errorf("within a minute it took %v", got)
		}
		if left := w.mails(); left != 2 {
			t.Errorf("%d items are left, want 2", left)
		}
	})
}

// count returns how often a text is in a list.
func count(list []string, text string) (n int) {
	for _, s := range list {
		if s == text {
			n++
		}
	}
	return n
}

// A node has as many items in hand as it has slots, whatever lies in its mailbox, and
// in the end it has had each once.
func TestMailSlots(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const slots, items = 7, 3000
		w := newWorld(t, srv)
		var want []string
		for i := range items {
			want = append(want, fmt.Sprintf("mail.%04d", i))
		}
		w.mail("n1", want[:items/2]...)
		most := new(highest)
		p := w.post("n1", postOptions{slots: slots, work: func(t *intake.Taken) {
			defer most.enter()()
			time.Sleep(10 * time.Millisecond)
			_ = t.Ack()
		}})
		time.Sleep(10 * time.Second)
		w.mail("n1", want[items/2:]...) // faster than they are worked on
		time.Sleep(10 * time.Second)    // so it need not wait for the next look
		if got := p.took(); !slices.Equal(got, want) {
			t.Errorf("it took %d items, want %d, each once", len(got), items)
		}
		if most.n != slots || p.in.Free() != slots {
			t.Errorf("it had %d at once, and %d slots are free, want %d", most.n, p.in.Free(), slots)
		}
	})
}

// A queue that is shut keeps its mail, and that of others goes on. When nothing is
// being taken any more, nothing starts before the gate opens.
func TestMailGate(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w, g := newWorld(t, srv), newGate()
		gate := func(queue string) (bool, <-chan struct{}) {
			open, changed := g.gate(queue)
			return open || queue != "mail", changed
		}
		p := w.post("n1", postOptions{queues: []string{"mail", "post"}, slots: 2, gate: gate})
		all := 0
		for round := range 50 {
			for i := range 10 {
				w.mail("n1", fmt.Sprintf("mail.%d-%d", round, i), fmt.Sprintf("post.%d-%d", round, i))
				all++
				if i == round%10 {
					g.set(false)
				}
			}
			time.Sleep(10 * time.Millisecond)
			shut := p.took()
			time.Sleep(time.Minute)
			w.expect(p)
			if n := slices.IndexFunc(shut, func(id string) bool { return id[:4] == "post" }); len(shut)-max(n, 0) != 10 {
				t.Fatalf("round %d: of 10 items of another queue came %d", round, len(shut)-n)
			}
			g.set(true)
			time.Sleep(time.Second)
			if opened := p.took(); len(opened)+len(shut) != 20 {
				t.Fatalf("round %d: took %d while it was shut, and %d then", round, len(shut), len(opened))
			}
		}
		synctest.Wait()
		if left := w.mails(); left != 0 {
			t.Errorf("%d of %d items are left", left, 2*all)
		}
	})
}

// While the process may not start anything it takes nothing, and afterwards all.
func TestMailNotReady(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w, ready := newWorld(t, srv), newGate()
		is := func() bool { open, _ := ready.gate(""); return open }
		p := w.post("n1", postOptions{ready: is})
		ready.set(false)
		time.Sleep(time.Second)
		w.mail("n1", "mail.a")
		time.Sleep(time.Minute)
		w.expect(p)
		ready.set(true)
		time.Sleep(time.Second)
		w.expect(p, "mail.a")
	})
}

// Without a mailbox nothing is taken from one.
func TestNoMailbox(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		p := w.post("", postOptions{})
		w.mail("n1", "mail.a")
		w.offer("", 1)
		p.in.Look()
		time.Sleep(time.Minute)
		w.expect(p, "mail.0")
	})
}
