package streams_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// hand notes what it hears of items.
type hand struct {
	mu   sync.Mutex
	said []string
}

func (h *hand) say(what string, sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, fmt.Sprint(what, " ", sequence))
}

func (h *hand) Done(sequence uint64) { h.say("done", sequence) }
func (h *hand) Left(sequence uint64, delay time.Duration) {
	h.say(fmt.Sprint("left for ", delay), sequence)
}
func (h *hand) Kept(sequence uint64) { h.say("kept", sequence) }

// mail puts items of the queue mail into the mailbox of a node.
func (w *world) mail(node string, locals ...string) {
	w.Helper()
	for _, local := range locals {
		item := streams.Item{Queue: "mail", Local: local, Node: node, Record: []byte("record of " + local), Revision: 7}
		if err := w.work.Offer(w.Context(), item); err != nil {
			w.Fatal(err)
		}
	}
}

// look returns what lies in a mailbox, page by page of a few items.
func (w *world) look(box *streams.Mailbox, most int) (got []*streams.Delivery) {
	w.Helper()
	for from, more := uint64(0), true; more; {
		before, err := len(got), error(nil)
		from, more, err = box.Look(w.Context(), from, most, func(d *streams.Delivery, err error) { got = append(got, must(d, err)(w)) })
		if err != nil {
			w.Fatal(err)
		}
		if n := len(got) - before; n > most {
			w.Errorf("a look brought %d items, want %d at most", n, most)
		}
	}
	return got
}

// An item for a node is heard by that node and found by it, whole, and by no other,
// nor by a worker of its queue.
func TestMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	boxes := map[string]*streams.Mailbox{}
	heard := map[string]chan *streams.Delivery{}
	for _, name := range []string{"n1 mail", "n2 mail", "n1 post"} {
		node, queue, _ := strings.Cut(name, " ")
		rings := make(chan *streams.Delivery, 10)
		boxes[name], heard[name] = w.work.Mailbox(node, queue, new(hand)), rings
		stop := must(boxes[name].Hear(func(d *streams.Delivery, err error) { rings <- must(d, err)(t) }))(t)
		defer stop()
	}
	want := streams.Item{
		Queue: "mail", Local: "a", Node: "n1", Class: streams.High, Record: []byte("record"), Revision: 9, Due: time.UnixMilli(1700000000123).UTC(),
	}
	if err := w.work.Offer(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	ring := <-heard["n1 mail"]
	if d := cmp.Diff(want, ring.Item); d != "" {
		t.Errorf("heard another item (-want +got):\n%s", d)
	}
	if ring.Stream != ns.MailStream() || ring.Sequence != 1 {
		t.Errorf("heard the item of %s under %d", ring.Stream, ring.Sequence)
	}
	for name, rings := range heard {
		found := w.look(boxes[name], 10)
		if name == "n1 mail" {
			if len(found) != 1 || found[0].Sequence != 1 || found[0].Stream != ring.Stream || !cmp.Equal(found[0].Item, want) {
				t.Errorf("found %+v", found)
			}
			continue
		}
		if len(found)+len(rings) > 0 {
			t.Errorf("%s heard %d items and found %v", name, len(rings), locals(found))
		}
	}
	if got := w.pull(w.puller(), 1, 0); len(got) > 0 {
		t.Errorf("a worker of the queue got %s", locals(got))
	}
}

// Of several items of a job the newest is there.
func TestMailboxKeepsTheNewest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	w.mail("n1", "a", "b", "a")
	w.mail("n2", "a")
	got := w.look(w.work.Mailbox("n1", "mail", new(hand)), 10)
	if locals(got) != "b a" || got[1].Sequence != 3 {
		t.Errorf("found %s", locals(got))
	}
}

// An answer reaches the hand; to acknowledge is to delete, once or more often.
func TestMailboxAnswers(t *testing.T) {
	t.Parallel()
	w, h := newWorld(t, connect(t, natstest.Start(t, t.TempDir()))), new(hand)
	box := w.work.Mailbox("n1", "mail", h)
	w.mail("n1", "a", "b", "c")
	got := w.look(box, 10)
	holds := func(d *streams.Delivery, want bool) {
		t.Helper()
		if got := must(w.work.Holds(t.Context(), d))(t); got != want {
			t.Errorf("the item of %s is there: %v, want %v", d.Local, got, want)
		}
	}
	holds(got[0], true)
	for _, err := range []error{got[0].Ack(), got[0].Ack(), got[1].Nak(time.Second), got[1].Progress(), got[2].Nak(0)} {
		if err != nil {
			t.Error(err)
		}
	}
	holds(got[0], false)
	holds(got[1], true)
	want := []string{"done 1", "done 1", "left for 1s 2", "kept 2", "left for 0s 3"}
	if d := cmp.Diff(want, h.said); d != "" {
		t.Errorf("the hand heard (-want +got):\n%s", d)
	}
	if left := locals(w.look(box, 10)); left != "b c" {
		t.Errorf("left are %s, want b c", left)
	}
	w.nc.Close()
	oneLine(t, got[1].Ack(), "streams: delete mail mail.b")
	if len(h.said) != len(want) {
		t.Errorf("the hand heard of what failed: %v", h.said)
	}
	_, _, err := box.Look(t.Context(), 0, 1, nil)
	oneLine(t, err, "streams: look into the mailbox of n1")
	_, err = box.Hear(nil)
	oneLine(t, err, "streams: listen to the mailbox of n1")
}

// A look finds everything, however much there is, page by page, and nothing of
// others.
func TestMailboxPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	var offers sync.WaitGroup
	for i := range 2500 {
		for _, node := range []string{"n1", "n2"} {
			offers.Add(1)
			w.work.OfferAsync(streams.Item{Queue: "mail", Local: fmt.Sprint(i), Node: node, Revision: 1}, func(err error) {
				defer offers.Done()
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	offers.Wait()
	box := w.work.Mailbox("n1", "mail", new(hand))
	for _, most := range []int{100, 1250, 3000} {
		got := w.look(box, most)
		if len(got) != 2500 || !slices.IsSortedFunc(got, func(a, b *streams.Delivery) int { return int(a.Sequence) - int(b.Sequence) }) {
			t.Errorf("by %d: found %d items, want 2500 in order", most, len(got))
		}
	}
	for _, d := range w.look(box, 500)[20:] {
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	for _, most := range []int{1, 19, 20, 21} {
		if got := w.look(box, most); len(got) != 20 {
			t.Errorf("by %d: found %d items, want 20", most, len(got))
		}
	}
}

// What somebody else publishes is told as an error and can be left; what the server
// has not sent is passed over.
func TestMailboxForeign(t *testing.T) {
	t.Parallel()
	w, h := newWorld(t, connect(t, natstest.Start(t, t.TempDir()))), new(hand)
	box := w.work.Mailbox("n1", "mail", h)
	rings := make(chan error, 10)
	defer must(box.Hear(func(_ *streams.Delivery, err error) { rings <- err }))(t)()
	forged := nats.Header{"Nats-Stream": {ns.MailStream()}, "Nats-Sequence": {"5"}, "Nats-Subject": {ns.MailSubject("n2", "mail", "a")}}
	for _, msg := range []*nats.Msg{
		{Subject: "mr.default.ring.n1.mail.a"},
		{Subject: "mr.default.ring.n1.mail.a", Header: forged},
		{Subject: "mr.default.ring.n1.mail.a", Header: nats.Header{"Nats-Stream": {"OTHER"}, "Nats-Sequence": {"5"}}},
		{Subject: "mr.default.mail.n1.mail.a", Data: []byte("{}")},
	} {
		if err := w.nc.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	oneLine(t, <-rings, "streams: decode message")
	if len(rings) > 0 {
		t.Errorf("heard what was never stored: %v", <-rings)
	}
	_, _, err := box.Look(t.Context(), 0, 10, func(d *streams.Delivery, err error) {
		oneLine(t, err, "streams: decode message")
		if err := d.Nak(time.Second); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !slices.Equal(h.said, []string{"left for 1s 1"}) {
		t.Errorf("the hand heard %v: %v", h.said, err)
	}
}

// The item of a pinned job is looked for in the mailbox, and withdrawn from there.
func TestMailOffered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	w.offer("queued")
	w.mail("n1", "a", "b")
	all := []streams.Ref{{ID: "mail.queued"}, {ID: "mail.a", Node: "n1"}, {ID: "mail.b", Node: "n2"}, {ID: "mail.b"}, {ID: "mail.none", Node: "n1"}}
	want := map[string]bool{"mail.queued": true, "mail.a": true}
	if d := cmp.Diff(want, must(w.work.Has(t.Context(), all))(t)); d != "" {
		t.Errorf("jobs with an item (-want +got):\n%s", d)
	}
	offered := func(node, local string, want bool) {
		t.Helper()
		if got := must(w.work.Offered(t.Context(), node, "mail", local))(t); got != want {
			t.Errorf("%s for %q: got %v, want %v", local, node, got, want)
		}
	}
	offered("n1", "a", true)
	offered("", "a", false)
	offered("n2", "a", false)
	offered("", "queued", true)
	offered("n1", "queued", false)
	for revision, want := range map[uint64]bool{7: true, 8: false} {
		if got := must(w.work.OfferedAt(t.Context(), "n1", "mail", "a", revision))(t); got != want {
			t.Errorf("at revision %d: got %v, want %v", revision, got, want)
		}
	}
	for _, c := range []struct {
		node     string
		revision uint64
		left     bool
	}{{"", 7, true}, {"n2", 7, true}, {"n1", 6, true}, {"n1", 7, false}, {"n1", 7, false}} {
		if err := w.work.Withdraw(t.Context(), c.node, "mail", "a", c.revision); err != nil {
			t.Fatal(err)
		}
		offered("n1", "a", c.left)
	}
	offered("n1", "b", true)
}

// A full stream refuses an item, and keeps those that it has.
func TestMailFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	js := open(t, w.nc)
	config := configs(t, js)[ns.MailStream()]
	config.MaxMsgs = 2
	must(js.UpdateStream(t.Context(), config))(t)
	w.mail("n1", "a", "b")
	err := w.work.Offer(t.Context(), streams.Item{Queue: "mail", Local: "c", Node: "n1"})
	var refused *jetstream.APIError
	if !errors.As(err, &refused) {
		t.Errorf("a full stream says %v", err)
	}
	if got := locals(w.look(w.work.Mailbox("n1", "mail", new(hand)), 10)); got != "a b" {
		t.Errorf("it holds %s, want a b", got)
	}
}

// A timer keeps for which node its item is.
func TestTimerForNode(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	timer := due(noon, "a")
	timer.Item.Node, timer.Item.Class = "n1", streams.Low
	c.set(timer)
	c.set(event(streams.PurposeOutset, "b"))
	got := must(c.timers.Get(t.Context(), 1))(t)
	if got.Item.Node != "n1" || got.Item.Class != streams.Low || got.Item.Queue != "mail" {
		t.Errorf("got item %+v", got.Item)
	}
	if got := must(c.timers.Get(t.Context(), 2))(t); got.Purpose != streams.PurposeOutset || got.Local != "b" || got.Item.Record != nil {
		t.Errorf("got %+v", got)
	}
}
