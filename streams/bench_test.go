package streams_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// slots is how many items a worker of the benchmarks asks for at once.
const slots = 100

// backlog is a work queue with b.N items, spread over some queues.
func backlog(b *testing.B, queues int) (w *world, names []string) {
	b.Helper()
	srv := natstest.StartListening(b, b.TempDir())
	w = newWorld(b, srv.Connect())
	for i := range queues {
		names = append(names, fmt.Sprint("q", i))
		w.serve(names[i])
	}
	offerAll(b, w, names)
	return w, names
}

// offerAll offers b.N items without waiting for each.
func offerAll(b *testing.B, w *world, queues []string) {
	b.Helper()
	pub := publisher(b, w.nc)
	work := must(streams.NewWork(ns, pub))(b)
	record := make([]byte, 256)
	var all sync.WaitGroup
	all.Add(b.N)
	for i := range b.N {
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		work.OfferAsync(streams.Item{Queue: queues[i%len(queues)], Local: fmt.Sprint(i), Record: record, Revision: 1}, func(err error) {
			if err != nil {
				b.Error(err)
			}
			all.Done()
		})
	}
	all.Wait()
}

func perSecond(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

func BenchmarkOffer(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	w := newWorld(b, srv.Connect())
	b.ReportAllocs()
	b.ResetTimer()
	offerAll(b, w, []string{"mail"})
	perSecond(b)
}

// BenchmarkTake takes a backlog and acknowledges it: as a worker does, and with
// the client's Consume, which fetches ahead.
func BenchmarkTake(b *testing.B) {
	ways := []struct {
		name string
		take func(ctx context.Context, w *world, queue string, done func()) error
	}{{"pull", takeByPull}, {"consume", takeByConsume}}
	for _, queues := range []int{1, 5, 20} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("by=%s/queues=%d", way.name, queues), func(b *testing.B) {
				w, names := backlog(b, queues)
				ctx, stop := context.WithTimeout(b.Context(), time.Minute)
				defer stop()
				var taken atomic.Int64
				done := func() {
					if taken.Add(1) == int64(b.N) {
						stop()
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				var all sync.WaitGroup
				for _, queue := range names {
					all.Go(func() {
						if err := way.take(ctx, w, queue, done); err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
				b.StopTimer()
				if taken.Load() < int64(b.N) {
					b.Fatalf("took %d items of %d", taken.Load(), b.N)
				}
				perSecond(b)
			})
		}
	}
}

// takeByPull waits for one item, then takes what else there is.
func takeByPull(ctx context.Context, w *world, queue string, done func()) error {
	p, err := w.work.Puller(queue, "")
	if err != nil {
		return err
	}
	take := func(d *streams.Delivery, err error) {
		if err = errors.Join(err, d.Ack()); err != nil {
			w.Error(err)
		}
		done()
	}
	for ctx.Err() == nil {
		taken, err := p.Pull(ctx, 1, 5*time.Second, take)
		for taken > 0 && err == nil {
			taken, err = p.Pull(ctx, slots, 0, take)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return p.Close(context.WithoutCancel(ctx))
}

// takeByConsume leaves everything to the client.
func takeByConsume(ctx context.Context, w *world, queue string, done func()) error {
	c, err := open(w, w.nc).Consumer(ctx, ns.WorkStream(), queue)
	if err != nil {
		return err
	}
	consuming, err := c.Consume(func(msg jetstream.Msg) {
		if err := msg.Ack(); err != nil {
			w.Error(err)
		}
		done()
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	consuming.Stop()
	<-consuming.Closed()
	return nil
}
