package streams_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// mailAll puts items into the mailboxes of some nodes, without waiting for each.
func mailAll(b *testing.B, work *streams.Work, nodes, each int) {
	b.Helper()
	var offers sync.WaitGroup
	room := make(chan struct{}, 4096)
	for i := range nodes * each {
		offers.Add(1)
		room <- struct{}{}
		item := streams.Item{Queue: "mail", Local: fmt.Sprint(i / nodes), Node: fmt.Sprint("other-", i%nodes), Record: make([]byte, 256), Revision: 1}
		work.OfferAsync(item, func(err error) {
			if err != nil {
				b.Error(err)
			}
			<-room
			offers.Done()
		})
	}
	offers.Wait()
}

// BenchmarkLook looks into a mailbox among 100,000 items of others, which has some
// items or none.
func BenchmarkLook(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	w := newWorld(b, srv.Connect())
	mailAll(b, w.work, 1000, 100)
	for _, own := range []int{0, 20, 1000} {
		node := fmt.Sprint("own-", own)
		for i := range own {
			w.mail(node, fmt.Sprint(i))
		}
		b.Run(fmt.Sprint("own=", own), func(b *testing.B) {
			box := w.work.Mailbox(node, "mail", new(hand))
			for b.Loop() {
				found := 0
				for from, more := uint64(0), true; more; {
					var err error
					from, more, err = box.Look(b.Context(), from, 128, func(*streams.Delivery, error) { found++ })
					if err != nil {
						b.Fatal(err)
					}
				}
				if found != own {
					b.Fatalf("found %d items, want %d", found, own)
				}
			}
		})
	}
	b.Run("page of many", func(b *testing.B) { // more than one multi-get can bring
		for i := range 5000 {
			w.mail("many", fmt.Sprint(i))
		}
		box := w.work.Mailbox("many", "mail", new(hand))
		b.ResetTimer()
		for b.Loop() {
			found := 0
			if _, more, err := box.Look(b.Context(), 0, 128, func(*streams.Delivery, error) { found++ }); err != nil || !more || found != 128 {
				b.Fatalf("found %d items, and more: %v, %v", found, more, err)
			}
		}
	})
}

// BenchmarkRing offers an item to a node that listens, and waits until it is heard.
func BenchmarkRing(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	w := newWorld(b, srv.Connect())
	heard := make(chan *streams.Delivery, 1)
	box := must(streams.NewWork(ns, publisher(b, srv.Connect())))(b).Mailbox("n1", "mail", new(hand))
	defer must(box.Hear(func(d *streams.Delivery, _ error) { heard <- d }))(b)()
	for b.Loop() {
		w.mail("n1", "a")
		if err := (<-heard).Ack(); err != nil {
			b.Fatal(err)
		}
	}
}
