package engine_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
)

// BenchmarkTrigger measures events on their way from a stream to a stored job
// and its work item. No worker runs the jobs.
func BenchmarkTrigger(b *testing.B) {
	for _, id := range []string{"", "event.data.id"} {
		name := "id=own"
		if id != "" {
			name = "id=expression"
		}
		b.Run(name, func(b *testing.B) {
			srv := natstest.Start(b, b.TempDir())
			eng, nc := connect(b, srv), natstest.Connect(b, srv)
			createStream(b, nc, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
			trigger := newOrders
			trigger.ID = id
			apply(b, eng, trigger)
			js := jetStream(b, nc)
			for i := range b.N {
				if _, err := js.PublishAsync("orders.created", []byte(`{"id":"o`+strconv.Itoa(i)+`","total":12,"items":["a","b","c"]}`), jetstream.WithStallWait(time.Minute)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			b.ReportAllocs()
			b.ResetTimer()
			serve(b, eng)
			settled(b, eng, "new-orders", uint64(b.N))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
