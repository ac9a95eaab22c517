package kv_test

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// natstest keeps it running on purpose.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// makeBucket makes the bucket test over a connection of its own. Expired keys
// leave a marker in it if markers is set.
func makeBucket(t testing.TB, srv *server.Server, markers bool) {
	t.Helper()
	cfg := jetstream.StreamConfig{
		Name:              "KV_test",
		Subjects:          []string{"$KV.test.>"},
		MaxMsgsPerSubject: 1,
		MaxConsumers:      100,
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		AllowDirect:       true,
		AllowMsgTTL:       true,
	}
	if markers {
		cfg.SubjectDeleteMarkerTTL = time.Minute
	}
	js, err := jetstream.New(natstest.Connect(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// open returns the bucket test over nc.
func open[T any](t testing.TB, nc *nats.Conn) *kv.Bucket[T] {
	t.Helper()
	return kv.Open(publisher(t, nc), "test", kv.JSON[T]())
}

func publisher(t testing.TB, nc *nats.Conn) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	return pub
}

// is fails the test unless err is want, which may be nil.
func is(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// create creates a key that must not be there.
func create[T any](t testing.TB, b *kv.Bucket[T], key string, v T, opts ...kv.WriteOptions) uint64 {
	t.Helper()
	rev, err := b.Create(t.Context(), key, v, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// update updates a key that must be at revision rev.
func update[T any](t testing.TB, b *kv.Bucket[T], key string, v T, rev uint64, opts ...kv.WriteOptions) uint64 {
	t.Helper()
	next, err := b.Update(t.Context(), key, v, rev, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// wantValue fails the test unless key has the value want.
func wantValue[T comparable](t testing.TB, b *kv.Bucket[T], key string, want T) {
	t.Helper()
	e, err := b.Get(t.Context(), key)
	if err != nil || e.Value != want {
		t.Errorf("%s is %v, %v, want %v", key, e.Value, err, want)
	}
}
