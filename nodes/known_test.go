package nodes

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// prepare makes the assets and returns a publisher on a connection of its own.
func prepare(t testing.TB, srv *server.Server) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(natstest.Connect(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	ensure(t, pub)
	return pub
}

func ensure(t testing.TB, pub *publish.Publisher) {
	t.Helper()
	opts := streams.Options{Lease: 6 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	if _, err := streams.Ensure(t.Context(), streams.DefaultNamespace, pub, opts); err != nil {
		t.Fatal(err)
	}
}

// verdictsKnown is what has been read of the verdicts, so far nothing.
func verdictsKnown(pub *publish.Publisher) *known[uint64] {
	return &known[uint64]{
		bucket: openVerdicts(pub, streams.DefaultNamespace),
		prefix: deadKey(""),
		number: func(e kv.Entry[uint64]) uint64 { return e.Value },
	}
}

// check reads, and checks that what is known is what there is. It returns how
// many messages that took.
func (k *known[T]) check(t *testing.T, pub *publish.Publisher, when string) uint64 {
	t.Helper()
	before := pub.Conn().Stats().InMsgs
	if err := k.read(t.Context()); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	took := pub.Conn().Stats().InMsgs - before
	list, err := k.bucket.ListStale(t.Context(), k.prefix+"*")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]uint64, len(list))
	for _, e := range list {
		want[e.Key[len(k.prefix):]] = k.number(e)
	}
	if d := cmp.Diff(want, k.numbers); d != "" {
		t.Errorf("%s, known is (-want +got):\n%s", when, d)
	}
	return took
}

// put stores a verdict, whatever is there.
func put(t testing.TB, b *kv.Bucket[uint64], node string, value uint64, ttl time.Duration) {
	t.Helper()
	write := kv.WriteOptions{TTL: ttl}
	_, err := b.Create(t.Context(), deadKey(node), value, write)
	if err != nil {
		cur, getErr := b.Get(t.Context(), deadKey(node))
		if getErr != nil {
			t.Fatal(getErr)
		}
		_, err = b.Update(t.Context(), deadKey(node), value, cur.Revision, write)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever is written, deleted or expires between two readings, the second knows.
func TestKnownFollows(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := prepare(t, srv)
		k := verdictsKnown(pub)
		random := rand.New(rand.NewPCG(6, 2321))
		k.check(t, pub, "at the start")
		for round := range 300 {
			for range random.IntN(4) {
				node := fmt.Sprint("n", random.IntN(12))
				switch cur, err := k.bucket.Get(t.Context(), deadKey(node)); {
				case err == nil && random.IntN(3) == 0:
					err = k.bucket.Delete(t.Context(), deadKey(node), cur.Revision)
					if err != nil {
						t.Fatal(err)
					}
				default:
					put(t, k.bucket, node, random.Uint64N(1000), time.Duration(1+random.IntN(120))*time.Second)
				}
			}
			time.Sleep(time.Duration(random.IntN(8000)) * time.Millisecond)
			if random.IntN(20) == 0 {
				time.Sleep(2 * time.Minute) // all markers of what expires are gone
			}
			k.check(t, pub, fmt.Sprint("in round ", round))
		}
	})
}

// What a reading cannot see by what has changed is found by one in full.
func TestKnownHeals(t *testing.T) {
	const count = 50 // a full reading is of so many messages, and another takes less
	for _, test := range []struct {
		name   string
		happen func(t *testing.T, pub *publish.Publisher, k *known[uint64])
	}{
		{"the stream is made anew", func(t *testing.T, pub *publish.Publisher, k *known[uint64]) {
			anew(t, pub)
			put(t, k.bucket, "other", 7, 0)
		}},
		{"and is as long as before", func(t *testing.T, pub *publish.Publisher, k *known[uint64]) {
			anew(t, pub)
			for i := range 2 * count {
				put(t, k.bucket, fmt.Sprint("other", i), 7, 0)
			}
		}},
		{"and has the newest key at the same sequence", func(t *testing.T, pub *publish.Publisher, k *known[uint64]) {
			anew(t, pub)
			for i := range count - 1 {
				put(t, k.bucket, fmt.Sprint("other", i), 7, 0)
			}
			put(t, k.bucket, fmt.Sprint("n", count-1), 7, 0)
		}},
		{"the newest value is gone without a marker", func(t *testing.T, _ *publish.Publisher, k *known[uint64]) {
			if err := k.bucket.Remove(t.Context(), k.newest.Key, k.newest.Revision); err != nil {
				t.Fatal(err)
			}
		}},
		{"a marker came and went", func(t *testing.T, _ *publish.Publisher, k *known[uint64]) {
			put(t, k.bucket, "n1", 7, time.Second)
			time.Sleep(2 * time.Minute)
		}},
		{"it was missed, and a reading is due in full", func(t *testing.T, _ *publish.Publisher, k *known[uint64]) {
			unseen(t, k)
			time.Sleep(fullEvery)
			k.begun = time.Now() // as if it had been read all the time
		}},
		{"it was missed, and the owner connected again", func(t *testing.T, _ *publish.Publisher, k *known[uint64]) {
			unseen(t, k)
			k.forget()
		}},
		{"it was missed, and a reading failed", func(t *testing.T, _ *publish.Publisher, k *known[uint64]) {
			unseen(t, k)
			bucket := k.bucket
			k.bucket = openVerdicts(closed(t), streams.DefaultNamespace)
			if err := k.read(t.Context()); err == nil {
				t.Error("read over a closed connection, want an error")
			}
			k.bucket = bucket
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				pub := prepare(t, srv)
				k := verdictsKnown(pub)
				for i := range count {
					put(t, k.bucket, fmt.Sprint("n", i), 1, 0)
				}
				k.check(t, pub, "at the start")
				if took := k.check(t, pub, "at rest"); took > 2 {
					t.Errorf("at rest, a reading takes %d messages", took)
				}
				test.happen(t, pub, k)
				k.check(t, pub, "after it happened")
				if took := k.check(t, pub, "at rest again"); took > 2 {
					t.Errorf("at rest again, a reading takes %d messages", took)
				}
			})
		})
	}
}

// anew puts another stream in the place of the nodes bucket.
func anew(t *testing.T, pub *publish.Publisher) {
	t.Helper()
	js, err := pub.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), openVerdicts(pub, streams.DefaultNamespace).Stream()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond) // or its messages were stored at the same time
	ensure(t, pub)
}

// unseen takes a value away so that a reading of what has changed does not see
// it, and makes sure of that.
func unseen(t *testing.T, k *known[uint64]) {
	t.Helper()
	cur, err := k.bucket.Get(t.Context(), deadKey("n1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.bucket.Remove(t.Context(), deadKey("n1"), cur.Revision); err != nil {
		t.Fatal(err)
	}
	if err := k.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, there := k.numbers["n1"]; !there {
		t.Fatal("the reading saw it, so nothing is to be healed")
	}
}

// closed returns a publisher whose connection is closed.
func closed(t *testing.T) *publish.Publisher {
	t.Helper()
	pub := prepare(t, natstest.Start(t, t.TempDir()))
	pub.Conn().Close()
	return pub
}

// BenchmarkJudgeRead shows what a reading costs after the first: the messages are
// those of 100 beats and of what has changed, however many nodes went before.
func BenchmarkJudgeRead(b *testing.B) {
	for _, gone := range []int{0, 1000, 10_000, 50_000} {
		b.Run(fmt.Sprint(gone), func(b *testing.B) {
			pub := prepare(b, natstest.Start(b, b.TempDir()))
			bury(b, pub, gone)
			beats := openBeats(pub, streams.DefaultNamespace)
			for i := range 100 {
				if _, err := beats.Create(b.Context(), beatKey(fmt.Sprint("n", i)), kv.Held{Holder: "h", Token: "t"}); err != nil {
					b.Fatal(err)
				}
			}
			j := NewJudge(pub, JudgeOptions{Lease: 6 * time.Second})
			if err := j.read(b.Context()); err != nil {
				b.Fatal(err)
			}
			before := pub.Conn().Stats().InMsgs
			for b.Loop() {
				if err := j.read(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(pub.Conn().Stats().InMsgs-before)/float64(b.N), "messages/op")
		})
	}
}

// bury stores what is left of so many nodes that are gone.
func bury(b *testing.B, pub *publish.Publisher, count int) {
	b.Helper()
	infos, verdicts := openInfos(pub, streams.DefaultNamespace), openVerdicts(pub, streams.DefaultNamespace)
	done := make(chan error, 2*count)
	write := func(_ uint64, err error) { done <- err }
	for i := range count {
		node := fmt.Sprint("gone", i)
		infos.CreateAsync(infoKey(node), Info{Kinds: []string{"email.send"}, Host: node}, write, kv.WriteOptions{TTL: keepFor})
		verdicts.CreateAsync(deadKey(node), 1<<40, write, kv.WriteOptions{TTL: keepFor})
		if i%500 != 499 && i != count-1 {
			continue
		}
		for range 2 * (i%500 + 1) {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
}
