package kv_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats.go"
)

// Headers tells of every key that matches and has a value, and of no other; it
// ends where nothing matches behind the last one, too.
func TestHeaders(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	ctx := t.Context()
	b := kv.Open(publisher(t, natstest.Connect(t, srv)), "test", kv.Codec[string]{
		Encode: func(s string) (nats.Header, []byte, error) {
			return nats.Header{"Is": {s}}, []byte(strings.Repeat("x", 1000)), nil
		},
		Decode: func(h nats.Header, _ []byte) (string, error) { return h.Get("Is"), nil },
	})
	read := func(filter string) map[string]string {
		t.Helper()
		got := map[string]string{}
		is(t, "headers", b.Headers(ctx, filter, func(key string, h nats.Header) error {
			got[key] = h.Get("Is")
			return nil
		}), nil)
		return got
	}
	if got := read(">"); len(got) > 0 {
		t.Errorf("an empty bucket has %v", got)
	}
	for _, key := range []string{"mail.a", "mail.b", "mail.c", "post.a"} {
		if _, err := b.Create(ctx, key, "new "+key); err != nil {
			t.Fatal(err)
		}
	}
	entry, err := b.Edit(ctx, "mail.a", func(string) (string, error) { return "edited", nil })
	is(t, "edit", err, nil)
	deleted, err := b.Get(ctx, "mail.b")
	is(t, "get", err, nil)
	is(t, "delete", b.Delete(ctx, "mail.b", deleted.Revision), nil)
	if d := gocmp.Diff(map[string]string{entry.Key: "edited", "mail.c": "new mail.c"}, read("mail.*")); d != "" {
		t.Errorf("mail (-want +got):\n%s", d)
	}
	if got := read("none.*"); len(got) > 0 {
		t.Errorf("nothing matches, got %v", got)
	}
	if got := slices.Sorted(maps.Keys(read(">"))); len(got) != 3 {
		t.Errorf("all: %v", got)
	}
	stop := errors.New("stop")
	is(t, "visit", b.Headers(ctx, ">", func(string, nats.Header) error { return stop }), stop)
}
