package kv_test

import (
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/internal/natstest"
)

// Whoever asks from what it got last gets that again and what came after it,
// markers included, in as many pages as that takes.
func TestChangesStale(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	nc, ctx := natstest.Connect(t, srv), t.Context()
	b, texts := open[int](t, nc), open[string](t, nc)
	want := func(filter string, from uint64, want ...string) {
		t.Helper()
		var got []string
		list, err := b.ChangesStale(ctx, filter, from)
		if err != nil {
			t.Error(err)
		}
		last := uint64(0)
		for _, event := range list {
			e := event.Entry
			if e.Revision < max(from, last+1) || e.Stored.IsZero() {
				t.Errorf("from %d: %v after revision %d", from, event, last)
			}
			got, last = append(got, fmt.Sprint(event.Kind, " ", e.Key, " ", e.Value)), e.Revision
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("%s from %d (-want +got):\n%s", filter, from, d)
		}
	}

	want("mail.*", 0)
	first := create(t, b, "mail.a", 1)
	second := create(t, b, "mail.b", 2)
	create(t, b, "post.a", 3)
	third := create(t, b, "mail.c", 4)
	want("mail.*", 0, "put mail.a 1", "put mail.b 2", "put mail.c 4")
	want("mail.*", second, "put mail.b 2", "put mail.c 4")
	want("mail.*", third, "put mail.c 4")
	want("mail.*", third+1)
	is(t, "delete", b.Delete(ctx, "mail.b", second), nil)
	update(t, b, "mail.a", 5, first)
	create(t, texts, "mail.d", "no number")
	want("mail.*", second, "put mail.c 4", "deleted mail.b 0", "put mail.a 5")
	want("mail.b", 0, "deleted mail.b 0")

	const n = 2500 // more than two pages
	fill(t, b, n, func(i int) string { return fmt.Sprintf("many.%d", i) })
	list, err := b.ChangesStale(ctx, "many.*", mustGet(t, b, "many.1").Revision)
	if err != nil || len(list) != n-1 || list[n-2].Entry.Value != n-1 {
		t.Errorf("got %d changes, %v, want %d", len(list), err, n-1)
	}
	nc.Close()
	if _, err := b.ChangesStale(ctx, "many.*", 0); err == nil {
		t.Error("a closed connection has no changes to tell, want an error")
	}
}
