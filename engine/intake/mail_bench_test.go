package intake_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// BenchmarkMail has b.N items taken from a mailbox and acknowledged: put in while the
// node listens, or before.
func BenchmarkMail(b *testing.B) {
	for _, before := range []bool{false, true} {
		b.Run(fmt.Sprint("before=", before), func(b *testing.B) {
			srv := natstest.StartListening(b, b.TempDir())
			open := func() (*publish.Publisher, *streams.Work) {
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
				return pub, work
			}
			pub, offering := open()
			_, taking := open()
			if before {
				offerAll(b, pub, offering)
			}
			b.ResetTimer()
			all := make(chan struct{})
			var taken atomic.Int64
			in := intake.New(taking, intake.Options{
				Queues: []string{"mail"}, Mailbox: "n1", Slots: 100, Ready: func() bool { return true },
				Shape:  func(context.Context, string) (streams.Shape, error) { return streams.Shape{AckWait: lease}, nil },
				Logger: slog.New(slog.DiscardHandler),
				Take: func(_ context.Context, t *intake.Taken, err error) {
					go func() {
						if err == nil {
							err = t.Ack()
						}
						if err != nil {
							b.Error(err)
						}
						t.Free()
						if taken.Add(1) == int64(b.N) {
							close(all)
						}
					}()
				},
			})
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			go func() { ended <- in.Run(ctx) }()
			if !before {
				time.Sleep(100 * time.Millisecond)
				b.ResetTimer()
				offerAll(b, pub, offering)
			}
			<-all
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
	}
}

// offerAll puts b.N items into the mailbox of n1.
func offerAll(b *testing.B, pub *publish.Publisher, work *streams.Work) {
	b.Helper()
	outcomes := make(chan error, b.N)
	for i := range b.N {
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		item := streams.Item{Queue: "mail", Local: fmt.Sprint(i), Node: "n1", Record: make([]byte, 256), Revision: 1}
		work.OfferAsync(item, func(err error) { outcomes <- err })
	}
	for range b.N {
		if err := <-outcomes; err != nil {
			b.Fatal(err)
		}
	}
}
