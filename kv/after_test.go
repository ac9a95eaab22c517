package kv_test

import (
	"errors"
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
)

// Whoever asks for what comes after what it got sees the last change of every
// key that matches, deletions included, and nothing twice.
func TestAfter(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	nc, ctx := natstest.Connect(t, srv), t.Context()
	b, texts := open[int](t, nc), open[string](t, nc)
	revision := uint64(0)
	told := func() (list []string) {
		for {
			event, err := b.After(ctx, "mail.*", revision)
			if errors.Is(err, kv.ErrNotFound) {
				return list
			}
			said := fmt.Sprint(event.Kind, " ", event.Entry.Key, " ", event.Entry.Value)
			if err != nil {
				said = "unreadable " + event.Entry.Key
			}
			if event.Entry.Revision <= revision {
				t.Fatalf("after revision %d: %v, %v", revision, event, err)
			}
			list, revision = append(list, said), event.Entry.Revision
		}
	}
	want := func(want ...string) {
		t.Helper()
		if d := gocmp.Diff(want, told()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	create := func(key string, v int) uint64 {
		t.Helper()
		rev, err := b.Create(ctx, key, v)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}

	want()
	create("mail.a", 1)
	second := create("mail.b", 2)
	create("post.a", 3)
	create("mail.c", 4)
	want("put mail.a 1", "put mail.b 2", "put mail.c 4")
	want()
	if err := b.Delete(ctx, "mail.b", second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Edit(ctx, "mail.a", func(int) (int, error) { return 5, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := texts.Create(ctx, "mail.d", "no number"); err != nil {
		t.Fatal(err)
	}
	want("deleted mail.b 0", "put mail.a 5", "unreadable mail.d")
	revision = 0
	want("put mail.c 4", "deleted mail.b 0", "put mail.a 5", "unreadable mail.d")
}
