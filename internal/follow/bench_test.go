package follow_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/natstest"
)

// BenchmarkRun reads the headers of b.N records of 500 bytes, as whoever looks
// through a bucket does. A million: -benchtime=1000000x.
func BenchmarkRun(b *testing.B) {
	for _, batch := range []int{500, 5000} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			srv := natstest.StartListening(b, b.TempDir())
			fill(b, srv.Connect(), b.N)
			pub, visits := publisher(b, srv.Connect()), 0
			opts := follow.Options{
				Stream: "S", Until: uint64(b.N), Headers: true, Batch: batch,
				Lag: time.Second, Now: func() time.Time { return time.Now().Add(time.Minute) },
			}
			b.ReportAllocs()
			b.ResetTimer()
			err := follow.Run(b.Context(), pub, opts, func(follow.Message) error {
				visits++
				return nil
			})
			if err != nil || visits != b.N {
				b.Fatalf("got %v after %d messages, want %d", err, visits, b.N)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// fill stores n records without waiting for each.
func fill(b *testing.B, nc *nats.Conn, n int) {
	b.Helper()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	makeStream(b, js)
	data := make([]byte, 500)
	for i := range n {
		_, err := js.PublishMsgAsync(&nats.Msg{Subject: fmt.Sprint("s.email.", i), Data: data, Header: nats.Header{
			"Mr-State": {"queued"}, "Mr-Kind": {"email.send"}, "Mr-Class": {"normal"}, "Mr-Node": {"node-1"},
		}}, jetstream.WithStallWait(time.Minute))
		if err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}
