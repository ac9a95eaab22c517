package kv_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// record is a value of a realistic size.
type record struct {
	ID, Kind, Queue, State, Node, Token string
	Attempt                             int
	Input                               []byte
}

func sample(i int) record {
	return record{
		ID: "mail." + strconv.Itoa(i), Kind: "mail.send", Queue: "mail", State: "running",
		Node: "host-a1b2", Token: "0123456789abcdef", Attempt: 1, Input: make([]byte, 96),
	}
}

// operations are what is compared; each is called with a key of its own.
type operations struct {
	create func(ctx context.Context, key string, v record) (uint64, error)
	update func(ctx context.Context, key string, v record, rev uint64) (uint64, error)
	get    func(ctx context.Context, key string) error
}

func ours(b *kv.Bucket[record]) operations {
	return operations{
		create: func(ctx context.Context, key string, v record) (uint64, error) { return b.Create(ctx, key, v) },
		update: func(ctx context.Context, key string, v record, rev uint64) (uint64, error) {
			return b.Update(ctx, key, v, rev)
		},
		get: func(ctx context.Context, key string) error { _, err := b.Get(ctx, key); return err },
	}
}

func theirs(b jetstream.KeyValue) operations {
	codec := kv.JSON[record]()
	encode := func(v record) []byte { _, data, _ := codec.Encode(v); return data }
	return operations{
		create: func(ctx context.Context, key string, v record) (uint64, error) { return b.Create(ctx, key, encode(v)) },
		update: func(ctx context.Context, key string, v record, rev uint64) (uint64, error) {
			return b.Update(ctx, key, encode(v), rev)
		},
		get: func(ctx context.Context, key string) error {
			e, err := b.Get(ctx, key)
			if err == nil {
				_, err = codec.Decode(nil, e.Value())
			}
			return err
		},
	}
}

// BenchmarkBlocking compares buckets with those of the NATS client, for a
// number of goroutines that wait for each answer. Get of this package reads
// from the leader, that of the client from any replica.
func BenchmarkBlocking(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	makeBucket(b, srv.Server(), false)
	js, err := jetstream.New(srv.Connect())
	if err != nil {
		b.Fatal(err)
	}
	bucket, err := js.KeyValue(b.Context(), "test")
	if err != nil {
		b.Fatal(err)
	}
	round := 0
	for _, way := range []struct {
		name string
		operations
	}{{"kv", ours(open[record](b, srv.Connect()))}, {"nats.go", theirs(bucket)}} {
		for _, flight := range []int{1, 64, 256} {
			each := func(b *testing.B, f func(i int) error) {
				b.ReportAllocs()
				var wg sync.WaitGroup
				for g := range flight {
					wg.Go(func() {
						for i := g; i < b.N; i += flight {
							if err := f(i); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			}
			name := fmt.Sprintf("by=%s/flight=%d/op=", way.name, flight)
			var revs []uint64
			key := func(i int) string { return fmt.Sprintf("%d.%d", round, i) }
			b.Run(name+"create", func(b *testing.B) {
				round++
				revs = make([]uint64, b.N)
				each(b, func(i int) (err error) {
					revs[i], err = way.create(b.Context(), key(i), sample(i))
					return err
				})
			})
			b.Run(name+"update", func(b *testing.B) {
				if b.N > len(revs) {
					b.Fatal("run with -benchtime=<n>x, so that every operation finds its key")
				}
				each(b, func(i int) (err error) {
					revs[i], err = way.update(b.Context(), key(i), sample(i), revs[i])
					return err
				})
			})
			b.Run(name+"get", func(b *testing.B) {
				each(b, func(i int) error { return way.get(b.Context(), key(i%len(revs))) })
			})
		}
	}
}

// BenchmarkPipelined compares a create and an update that follows it, without
// waiting, with the same by the client's PublishMsgAsync.
func BenchmarkPipelined(b *testing.B) {
	srv := natstest.StartListening(b, b.TempDir())
	makeBucket(b, srv.Server(), false)
	pub := publisher(b, srv.Connect())
	round := 0
	b.Run("by=kv", func(b *testing.B) {
		round++
		b.ReportAllocs()
		pipelineOurs(b, pub, round)
		b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	})
	b.Run("by=nats.go", func(b *testing.B) {
		round++
		b.ReportAllocs()
		pipelineTheirs(b, srv.Connect(), round)
		b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	})
}

func pipelineOurs(b *testing.B, pub *publish.Publisher, round int) {
	bucket := kv.Open(pub, "test", kv.JSON[record]())
	var all sync.WaitGroup
	all.Add(b.N)
	for i := range b.N {
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		key, v := fmt.Sprintf("%d.%d", round, i), sample(i)
		bucket.CreateAsync(key, v, func(rev uint64, err error) {
			if err != nil {
				b.Error(err)
			}
			bucket.UpdateAsync(key, v, rev, func(_ uint64, err error) {
				if err != nil {
					b.Error(err)
				}
				all.Done()
			})
		})
	}
	all.Wait()
}

func pipelineTheirs(b *testing.B, nc *nats.Conn, round int) {
	codec := kv.JSON[record]()
	message := func(i int, rev uint64) *nats.Msg {
		_, data, _ := codec.Encode(sample(i))
		return &nats.Msg{
			Subject: fmt.Sprintf("$KV.test.%d.%d", round, i),
			Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(rev, 10)}},
			Data:    data,
		}
	}
	var all sync.WaitGroup
	all.Add(b.N)
	var js jetstream.JetStream
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(8192),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { b.Error(err) }),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, msg *nats.Msg, ack *jetstream.PubAck) {
			if msg.Header.Get(jetstream.ExpectedLastSubjSeqHeader) != "0" {
				all.Done()
				return
			}
			var i int
			fmt.Sscanf(msg.Subject, "$KV.test."+strconv.Itoa(round)+".%d", &i)
			if _, err := js.PublishMsgAsync(message(i, ack.Sequence)); err != nil {
				b.Error(err)
			}
		}))
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		for js.PublishAsyncPending() >= 4096 {
			<-js.PublishAsyncComplete()
		}
		if _, err := js.PublishMsgAsync(message(i, 0)); err != nil {
			b.Fatal(err)
		}
	}
	all.Wait()
}
