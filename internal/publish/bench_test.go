package publish_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// BenchmarkPublish compares this package with the NATS client: blocking calls
// by a number of goroutines, and one goroutine that does not wait.
func BenchmarkPublish(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	makeStream(b, srv.Server())
	p := newPublisher(b, srv.Connect())
	js, err := jetstream.New(srv.Connect(),
		jetstream.WithPublishAsyncMaxPending(4096),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { b.Error(err) }))
	if err != nil {
		b.Fatal(err)
	}
	ways := []struct {
		name     string
		blocking func(context.Context, *nats.Msg) error
		pipeline func(n int)
	}{
		{"publish", func(ctx context.Context, msg *nats.Msg) error {
			_, err := p.Publish(ctx, msg)
			return err
		}, func(n int) { pipeline(b, p, n) }},
		{"nats.go", func(ctx context.Context, msg *nats.Msg) error {
			_, err := js.PublishMsg(ctx, msg)
			return err
		}, func(n int) {
			for i := range n {
				if _, err := js.PublishMsgAsync(body(i)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
		}},
	}
	for _, way := range ways {
		for _, flight := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("by=%s/flight=%d", way.name, flight), func(b *testing.B) {
				b.ReportAllocs()
				var wg sync.WaitGroup
				for g := range flight {
					wg.Go(func() {
						for i := g; i < b.N; i += flight {
							if err := way.blocking(b.Context(), body(i)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
		b.Run(fmt.Sprintf("by=%s/flight=pipelined", way.name), func(b *testing.B) {
			b.ReportAllocs()
			way.pipeline(b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func pipeline(b *testing.B, p *publish.Publisher, n int) {
	var all sync.WaitGroup
	all.Add(n)
	done := func(_ publish.Ack, err error) {
		if err != nil {
			b.Error(err)
		}
		all.Done()
	}
	for i := range n {
		if err := p.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		p.PublishAsync(body(i), done)
	}
	all.Wait()
}

// body returns a message of 128 bytes.
func body(i int) *nats.Msg {
	return &nats.Msg{Subject: "s." + strconv.Itoa(i%1000), Data: make([]byte, 128)}
}
