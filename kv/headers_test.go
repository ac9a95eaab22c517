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
		_, err := b.Headers(ctx, filter, func(h kv.Head) error {
			got[h.Key] = h.Header.Get("Is")
			return nil
		})
		is(t, "headers", err, nil)
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
	upTo, err := b.Headers(ctx, ">", func(h kv.Head) error {
		if h.Key == entry.Key && h.Revision != entry.Revision {
			t.Errorf("%s is at %d, got %d", h.Key, entry.Revision, h.Revision)
		}
		return nil
	})
	is(t, "headers", err, nil)
	if upTo != entry.Revision+1 { // the deletion
		t.Errorf("the last revision is %d, got %d", entry.Revision+1, upTo)
	}
	_, err = b.Headers(ctx, ">", func(kv.Head) error { return stop })
	is(t, "visit", err, stop)
}
