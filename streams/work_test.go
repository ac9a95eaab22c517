package streams_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// An item arrives as it was offered, whatever characters names may have.
func TestOffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	var want []streams.Item
	for i, name := range []struct{ queue, local string }{
		{"mail", "a"},
		{"mail-out_2", "a-b_c"},
		{"mail-out_2", "nightly=1700000000000-manual"},
		{"0", "orders=1700000000-18446744073709551615"},
	} {
		w.serve(name.queue)
		item := streams.Item{Queue: name.queue, Local: name.local, Record: fmt.Appendf(nil, `{"n":%d}`, i), Revision: uint64(1) << (21 * i)}
		if i%2 == 1 {
			item.Due = noon.Add(time.Duration(i) * time.Millisecond)
		}
		if err := w.work.Offer(t.Context(), item); err != nil {
			t.Fatal(err)
		}
		want = append(want, item)
	}
	for i, item := range want {
		p := must(w.work.Puller(item.Queue, item.Class))(t)
		got := w.pull(p, 1, time.Minute)[0]
		if d := cmp.Diff(item, got.Item); d != "" {
			t.Errorf("item (-want +got):\n%s", d)
		}
		if got.Stream != ns.WorkStream() || got.Sequence != uint64(i+1) {
			t.Errorf("it is message %d of %s, want %d of %s", got.Sequence, got.Stream, i+1, ns.WorkStream())
		}
		if err := errors.Join(got.Ack(), p.Close(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// Items are offered without waiting, and each outcome is told once. The same
// item may be offered twice.
func TestOfferAsync(t *testing.T) {
	t.Parallel()
	const items = 1000
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	outcomes := make(chan error, 2*items+1)
	for i := range items {
		item := streams.Item{Queue: "mail", Local: fmt.Sprint(i), Revision: 1}
		w.work.OfferAsync(item, func(err error) { outcomes <- err })
		w.work.OfferAsync(item, func(err error) { outcomes <- err })
	}
	for range 2 * items {
		if err := <-outcomes; err != nil {
			t.Fatal(err)
		}
	}
	if got := state(t, open(t, w.nc), ns.WorkStream()).Msgs; got != 2*items {
		t.Errorf("the stream holds %d items, want %d", got, 2*items)
	}
	if len(outcomes) != 0 {
		t.Errorf("%d outcomes too many", len(outcomes))
	}
}

// A namespace that nobody set up has no work queue, and says so.
func TestWorkWithoutAssets(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Start(t, t.TempDir()))
	work := must(streams.NewWork(ns, publisher(t, nc)))(t)
	item := streams.Item{Queue: "mail", Local: "a"}
	oneLine(t, work.Offer(t.Context(), item), "streams: offer mail.a")
	outcome := make(chan error)
	work.OfferAsync(item, func(err error) { outcome <- err })
	oneLine(t, <-outcome, "streams: offer mail.a")
	oneLine(t, work.Withdraw(t.Context(), "", "mail", "a", math.MaxUint64), "streams: withdraw mail.a")
	oneLine(t, work.Serve(t.Context(), "mail", streams.Shape{AckWait: ackWait}), "streams: ", "queue mail")
}

// Withdrawing takes every item of a job away, in whatever hands it is, and no
// other.
func TestWithdraw(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		w.offer("a", "b", "a", "a")
		p := w.puller()
		held := w.pull(p, 2, time.Minute)
		for _, local := range []string{"a", "none"} {
			if err := w.work.Withdraw(t.Context(), "", "mail", local, 7); err != nil {
				t.Fatal(err)
			}
		}
		if got := state(t, open(t, w.nc), ns.WorkStream()).Msgs; got != 1 {
			t.Errorf("the stream holds %d items, want b", got)
		}
		synctest.Wait() // the consumer hears of it after whoever withdrew
		if got := w.info().NumAckPending; got != 1 {
			t.Errorf("%d deliveries are open, want that of b", got)
		}
		for _, d := range held { // harmless for a
			if err := d.Nak(0); err != nil {
				t.Error(err)
			}
		}
		if got := locals(w.pull(p, 1, time.Minute)); got != "b" {
			t.Errorf("got %s, want b", got)
		}
	})
}

// What was offered at a later revision stays: it belongs to another job that has
// the ID by now.
func TestWithdrawOfThePast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	w.offer("a")
	for _, c := range []struct{ revision, left uint64 }{{6, 1}, {7, 0}, {7, 0}} {
		if err := w.work.Withdraw(t.Context(), "", "mail", "a", c.revision); err != nil {
			t.Fatal(err)
		}
		if got := state(t, open(t, w.nc), ns.WorkStream()).Msgs; got != c.left {
			t.Errorf("up to revision %d: %d items are left, want %d", c.revision, got, c.left)
		}
	}
}

// Serve can be called by all workers, and changes only the wait.
func TestServe(t *testing.T) {
	t.Parallel()
	srv := natstest.StartWith(t, &server.Options{DontListen: true, JetStream: true, Users: users(map[string]*server.Permissions{"u": except("$JS.API.CONSUMER.CREATE.>")})})
	w := newWorld(t, connect(t, srv, nats.UserInfo("admin", "x")))
	before := w.info()
	w.serve("mail")
	if err := must(streams.NewWork(ns, publisher(t, connect(t, srv, nats.UserInfo("u", "x")))))(t).Serve(t.Context(), "mail", streams.Shape{AckWait: ackWait}); err != nil {
		t.Errorf("a worker that may not create the consumer: %v", err)
	}
	if d := cmp.Diff(before, w.info(), cmpopts.IgnoreFields(jetstream.ConsumerInfo{}, "TimeStamp")); d != "" {
		t.Errorf("served again (-before +after):\n%s", d)
	}
	w.offer("a")
	held := w.pull(w.puller(), 1, time.Minute)
	if err := w.work.Serve(t.Context(), "mail", streams.Shape{AckWait: 2 * ackWait}); err != nil {
		t.Fatal(err)
	}
	after := w.info()
	if after.Config.AckWait != 2*ackWait || after.NumAckPending != 1 || !after.Created.Equal(before.Created) {
		t.Errorf("after a change got %+v", after)
	}
	if err := held[0].Ack(); err != nil {
		t.Error(err)
	}
}

// Deliveries come back when they should: see the want of each story.
func TestComesBack(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(*streams.Delivery) error
		after  time.Duration
	}{
		{"no answer", func(*streams.Delivery) error { return nil }, ackWait},
		{"nak", func(d *streams.Delivery) error { return d.Nak(0) }, 0},
		{"negative delay", func(d *streams.Delivery) error { return d.Nak(-time.Second) }, 0},
		{"nak with a delay", func(d *streams.Delivery) error { return d.Nak(90 * time.Minute) }, 90 * time.Minute},
		{"progress", func(d *streams.Delivery) error {
			for range 10 {
				time.Sleep(ackWait - time.Second)
				if err := d.Progress(); err != nil {
					return err
				}
			}
			return nil
		}, 10*(ackWait-time.Second) + ackWait},
	} {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				w := newWorld(t, connect(t, srv))
				w.offer("a")
				first, second := w.puller(), w.puller()
				d := w.pull(first, 1, time.Minute)[0]
				start := time.Now()
				if err := test.answer(d); err != nil {
					t.Fatal(err)
				}
				got := w.pull(second, 1, 10*time.Hour)
				if locals(got) != "a" || got[0].Sequence != d.Sequence {
					t.Fatalf("got %q, want a", locals(got))
				}
				if late := time.Since(start) - test.after; late < 0 || late > time.Second {
					t.Errorf("it came back after %v, want %v", time.Since(start), test.after)
				}
				if err := got[0].Ack(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * ackWait)
				if n := state(t, open(t, w.nc), ns.WorkStream()).Msgs; n != 0 {
					t.Errorf("%d items are left after the ack", n)
				}
			})
		})
	}
}

// What others publish into the work queue is told as an error, and can be
// answered like an item.
func TestForeignMessages(t *testing.T) {
	item := func(change func(*nats.Msg)) *nats.Msg {
		m := &nats.Msg{Subject: ns.WorkSubject("mail", streams.Class, "a"), Data: []byte("{}"), Header: nats.Header{"Mr-Type": {"item/1"}, "Mr-Revision": {"7"}}}
		change(m)
		return m
	}
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		p, js := w.puller(), open(t, w.nc)
		for _, test := range []struct {
			msg  *nats.Msg
			want string
		}{
			{item(func(*nats.Msg) {}), ""},
			{item(func(m *nats.Msg) { m.Header.Set("X-Unknown", "x"); m.Data = nil }), ""},
			{item(func(m *nats.Msg) { m.Header = nil }), `want "item"`},
			{item(func(m *nats.Msg) { m.Header.Set("Mr-Type", "item/2") }), "upgrade this process"},
			{item(func(m *nats.Msg) { m.Header.Del("Mr-Revision") }), `item mail.a: revision "" is no number`},
			{item(func(m *nats.Msg) { m.Header.Set("Mr-Revision", "-1") }), `revision "-1" is no number`},
			{item(func(m *nats.Msg) { m.Header.Set("Mr-Due", "soon") }), `item mail.a: due time "soon" is no number`},
			{item(func(m *nats.Msg) { m.Subject += ".b" }), "is no subject of the work queue"},
			{&nats.Msg{Subject: ns.WorkSubject("mail", streams.Class, "5"), Header: nats.Header{"Status": {"404"}}}, `want "item"`},
			{&nats.Msg{Subject: ns.WorkSubject("mail", streams.Class, "6"), Header: nats.Header{"Status": {"503"}}}, `want "item"`},
		} {
			must(js.PublishMsg(t.Context(), test.msg))(t)
			taken, err := p.Pull(t.Context(), 1, time.Minute, func(d *streams.Delivery, err error) {
				switch {
				case test.want != "":
					oneLine(t, err, "streams: ", test.want)
				case err != nil:
					t.Error(err)
				}
				if err := d.Ack(); err != nil {
					t.Error(err)
				}
			})
			if taken != 1 || err != nil {
				t.Errorf("%v: took %d, %v", test.msg, taken, err)
			}
		}
		time.Sleep(time.Second)
		if got := w.info(); got.NumAckPending != 0 || got.NumPending != 0 {
			t.Errorf("%d deliveries are open and %d items wait, want none", got.NumAckPending, got.NumPending)
		}
	})
}

// Answers fail at once while the server is away.
func TestAnswerWhileAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, nil, "none")
		w := newWorld(t, link.Connect(t))
		w.offer("a")
		d := w.pull(w.puller(), 1, time.Minute)[0]
		link.Down()
		time.Sleep(time.Second)
		for _, answer := range []func() error{d.Ack, d.Progress, func() error { return d.Nak(time.Second) }} {
			oneLine(t, answer(), "streams: answer delivery of mail.a")
		}
	})
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	want := streams.Delivery{Stream: "S", Sequence: 20, Waiting: 40}
	for _, test := range []struct {
		reply string
		ok    bool
	}{
		{"$JS.ACK.S.C.1.20.30.1700000000000000000.40", true},
		{"$JS.ACK._.acchash.S.C.1.20.30.1700000000000000000.40.token", true},
		{"$JS.ACK.hub.acchash.S.C.1.20.30.1700000000000000000.40", true},
		{"$JS.ACK.hub.acchash.S.C.1.20.30.1700000000000000000.40.token.and.more", true},
		{"", false},
		{"_INBOX.x.1", false},
		{"$JS.ACK.S.C.1.20.30.1700000000000000000", false},
		{"$JS.ACK.S.C.1.20.30.1700000000000000000.x", false},
		{"$JS.ACK.S.C.1.-20.30.1700000000000000000.40", false},
		{"$JS.NAK.S.C.1.20.30.1700000000000000000.40", false},
		{"$XX.ACK.S.C.1.20.30.1700000000000000000.40", false},
		{"$JS.ACK.acchash.S.C.1.20.30.1700000000000000000.40", false},
	} {
		got, err := streams.ParseReply(test.reply)
		if !test.ok {
			oneLine(t, err, "is no reply subject of JetStream")
			continue
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(streams.Delivery{})); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", test.reply, err, d)
		}
	}
}

// The reader of reply subjects never panics, and reads what JetStream writes,
// as the NATS client does.
func FuzzParseReply(f *testing.F) {
	f.Add("$JS.ACK.S.C.1.20.30.1700000000000000000.40")
	f.Add("$JS.ACK._.acchash.S.C.1.20.30.1700000000000000000.40.token")
	f.Add("............")
	f.Fuzz(func(t *testing.T, reply string) {
		got, err := streams.ParseReply(reply)
		if err != nil {
			oneLine(t, err, "is no reply subject of JetStream")
		}
		msg := nats.Msg{Reply: reply, Sub: &nats.Subscription{}}
		want, theirs := msg.Metadata()
		if theirs != nil || strings.Count(reply, ".") == 9 {
			return
		}
		if err == nil && (got.Stream != want.Stream || got.Sequence != want.Sequence.Stream || got.Waiting != want.NumPending) {
			t.Errorf("%q: got %+v, the client %+v", reply, got, want)
		}
	})
}
