package intake_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// BenchmarkMail has b.N items taken from a mailbox and acknowledged: put in while the
// node listens, or before.
func BenchmarkMail(b *testing.B) {
	b.Run("heard", func(b *testing.B) {
		offering, taking := benchWork(b)
		first := newTaker(taking, 1)
		first.start(b)
		if err := offering.work.Offer(b.Context(), streams.Item{Queue: "mail", Local: "first", Node: "n1"}); err != nil {
			b.Fatal(err)
		}
		<-first.all // it listens
		first.left.Store(int64(b.N))
		first.all = make(chan struct{})
		b.ResetTimer()
		offerAll(b, offering)
		first.await(b)
	})
	b.Run("found", func(b *testing.B) {
		offering, taking := benchWork(b)
		offerAll(b, offering)
		all := newTaker(taking, b.N)
		b.ResetTimer()
		all.start(b)
		all.await(b)
	})
}

// benchWork returns the work queue over two connections.
func benchWork(b *testing.B) (offering, taking wire) {
	b.Helper()
	srv := natstest.StartListening(b, b.TempDir())
	open := func() wire {
		pub, err := publish.New(srv.Connect())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pub.Close)
		if _, err := streams.Ensure(b.Context(), ns, pub, streams.Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
			b.Fatal(err)
		}
		work, err := streams.NewWork(ns, pub)
		if err != nil {
			b.Fatal(err)
		}
		return wire{pub, work}
	}
	return open(), open()
}

// wire is the work queue over one connection.
type wire struct {
	pub  *publish.Publisher
	work *streams.Work
}

// taker takes items from the mailbox of n1 until none is left.
type taker struct {
	in   *intake.Intake
	left atomic.Int64
	all  chan struct{} // closed when none is left
}

func newTaker(from wire, items int) *taker {
	t := &taker{all: make(chan struct{})}
	t.left.Store(int64(items))
	t.in = intake.New(from.work, intake.Options{
		Queues: []string{"mail"}, Mailbox: "n1", Slots: 100, Ready: func() bool { return true },
		Shape:  func(context.Context, string) (streams.Shape, error) { return streams.Shape{AckWait: lease}, nil },
		Logger: slog.New(slog.DiscardHandler),
		Take: func(_ context.Context, item *intake.Taken, _ error) {
			go func() {
				_ = item.Ack() // or it comes again, and is missed
				item.Free()
				if t.left.Add(-1) == 0 {
					close(t.all)
				}
			}()
		},
	})
	return t
}

// start runs the intake until the benchmark ends.
func (t *taker) start(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- t.in.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
}

func (t *taker) await(b *testing.B) {
	b.Helper()
	<-t.all
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

// offerAll puts b.N items into the mailbox of n1.
func offerAll(b *testing.B, over wire) {
	b.Helper()
	outcomes := make(chan error, b.N)
	for i := range b.N {
		if err := over.pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		item := streams.Item{Queue: "mail", Local: fmt.Sprint(i), Node: "n1", Record: make([]byte, 256), Revision: 1}
		over.work.OfferAsync(item, func(err error) { outcomes <- err })
	}
	for range b.N {
		if err := <-outcomes; err != nil {
			b.Fatal(err)
		}
	}
}
