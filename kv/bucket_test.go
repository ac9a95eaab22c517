package kv_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b := open[string](t, natstest.Connect(t, srv))
	ctx := t.Context()

	_, err := b.Get(ctx, "a")
	is(t, "get what was never there", err, kv.ErrNotFound)
	rev := create(t, b, "a", "one")
	_, err = b.Create(ctx, "a", "two")
	is(t, "create what is there", err, kv.ErrExists)
	if kv.Unknown(err) {
		t.Errorf("%v leaves open what is stored", err)
	}
	wantValue(t, b, "a", "one")

	next := update(t, b, "a", "two", rev)
	_, err = b.Update(ctx, "a", "three", rev)
	is(t, "update an old revision", err, kv.ErrConflict)
	if api := (*jetstream.APIError)(nil); !kv.Unknown(err) || !errors.As(err, &api) {
		t.Errorf("%v hides the conflict", err)
	}
	e, err := b.Get(ctx, "a")
	is(t, "get", err, nil)
	if age := time.Since(e.Stored); age < -time.Minute || age > time.Minute {
		t.Errorf("stored %v ago", age)
	}
	e.Stored = time.Time{}
	if diff := cmp.Diff(kv.Entry[string]{Key: "a", Value: "two", Revision: next}, e); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}

	is(t, "delete an old revision", b.Delete(ctx, "a", rev), kv.ErrConflict)
	is(t, "delete", b.Delete(ctx, "a", next), nil)
	_, err = b.Get(ctx, "a")
	is(t, "get what was deleted", err, kv.ErrNotFound)
	rev = create(t, b, "a", "again")
	wantValue(t, b, "a", "again")

	is(t, "remove an old revision", b.Remove(ctx, "a", next), nil)
	wantValue(t, b, "a", "again")
	is(t, "remove", b.Remove(ctx, "a", rev), nil)
	is(t, "remove again", b.Remove(ctx, "a", rev), nil)
	is(t, "remove what never was", b.Remove(ctx, "a", 1_000_000), nil)
	_, err = b.Get(ctx, "a")
	is(t, "get what was removed", err, kv.ErrNotFound)
}

// A key with a time to live ends by itself, with or without a marker, and can
// be created again. A write without one lifts it.
func TestExpiry(t *testing.T) {
	for _, markers := range []bool{false, true} {
		natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
			makeBucket(t, srv, markers)
			b := open[string](t, natstest.Connect(t, srv))
			hour := kv.WriteOptions{TTL: time.Hour}
			first := create(t, b, "a", "one", hour)
			update(t, b, "kept", "two", create(t, b, "kept", "one", hour))
			update(t, b, "renewed", "two", create(t, b, "renewed", "one"), hour)

			time.Sleep(59 * time.Minute)
			wantValue(t, b, "a", "one")
			time.Sleep(time.Minute + time.Second)
			for _, key := range []string{"a", "renewed"} {
				_, err := b.Get(t.Context(), key)
				is(t, "get expired "+key, err, kv.ErrNotFound)
			}
			wantValue(t, b, "kept", "two")
			if again := create(t, b, "a", "again"); again <= first {
				t.Errorf("revision went from %d to %d", first, again)
			}
		})
	}
}

// The marker of a delete goes away by itself.
func TestDeleteLeavesNothing(t *testing.T) {
	for _, markers := range []bool{false, true} {
		natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
			makeBucket(t, srv, markers)
			b := open[string](t, natstest.Connect(t, srv))
			is(t, "delete", b.Delete(t.Context(), "a", create(t, b, "a", "one")), nil)
			time.Sleep(2 * time.Hour)
			js, err := jetstream.New(natstest.Connect(t, srv))
			is(t, "jetstream", err, nil)
			stream, err := js.Stream(t.Context(), "KV_test")
			is(t, "stream", err, nil)
			if n := stream.CachedInfo().State.Msgs; n != 0 {
				t.Errorf("%d messages stay", n)
			}
		})
	}
}

func TestAsync(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	b := open[int](t, natstest.Connect(t, srv))
	type outcome struct {
		rev uint64
		err error
	}
	outcomes := make(chan outcome, 1)
	done := func(rev uint64, err error) { outcomes <- outcome{rev, err} }

	b.CreateAsync("a", 1, done)
	first := <-outcomes
	is(t, "create", first.err, nil)
	b.CreateAsync("a", 2, done)
	is(t, "create again", (<-outcomes).err, kv.ErrConflict)
	b.UpdateAsync("a", 2, first.rev, func(rev uint64, err error) {
		is(t, "update", err, nil)
		b.UpdateAsync("a", 3, rev, done)
	})
	is(t, "update by a callback", (<-outcomes).err, nil)
	wantValue(t, b, "a", 3)
	b.UpdateAsync("no key", 1, 0, done)
	if o := <-outcomes; o.err == nil || kv.Unknown(o.err) {
		t.Errorf("bad key: got %v", o.err)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	pub := publisher(t, natstest.Connect(t, srv))
	b := kv.Open(pub, "test", kv.JSON[string]())
	for _, key := range []string{"", "a.*", ">", "a b", ".a", "a.", "a..b", "a\r\nb"} {
		if _, err := b.Get(t.Context(), key); err == nil || errors.Is(err, kv.ErrNotFound) {
			t.Errorf("get %q: got %v, want a refusal", key, err)
		}
		if _, err := b.Create(t.Context(), key, "x"); err == nil {
			t.Errorf("create %q was accepted", key)
		}
	}
	_, err := b.Create(t.Context(), "a", "x", kv.WriteOptions{TTL: 1500 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "1.5s") {
		t.Errorf("broken time to live: got %v", err)
	}

	// A value of another type is an error with its place, and nothing worse.
	rev := create(t, b, "text", "hello")
	_, err = kv.Open(pub, "test", kv.JSON[int]()).Get(t.Context(), "text")
	want := "kv: get text in test: decode revision " + strconv.FormatUint(rev, 10)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("undecodable: got %v, want %s…", err, want)
	}

	_, err = kv.Open(pub, "missing", kv.JSON[int]()).Get(t.Context(), "a")
	if err == nil || errors.Is(err, kv.ErrNotFound) {
		t.Errorf("missing bucket: got %v, want another error than ErrNotFound", err)
	}
}

// What a codec puts into the header is there again for the reader.
func TestHeaderCodec(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	codec := kv.Codec[[2]string]{
		Encode: func(v [2]string) (nats.Header, []byte, error) {
			return nats.Header{"State": {v[0]}}, []byte(v[1]), nil
		},
		Decode: func(h nats.Header, data []byte) ([2]string, error) {
			return [2]string{h.Get("State"), string(data)}, nil
		},
	}
	b := kv.Open(publisher(t, natstest.Connect(t, srv)), "test", codec)
	want := [2]string{"running", "body"}
	create(t, b, "a", want)
	wantValue(t, b, "a", want)
	list, err := b.ListStale(t.Context(), ">")
	if err != nil || len(list) != 1 || list[0].Value != want {
		t.Errorf("list: got %v, %v, want %v", list, err, want)
	}
}
