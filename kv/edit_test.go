package kv_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
)

func TestEdit(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	b, ctx := open[int](t, natstest.Connect(t, srv)), t.Context()

	_, err := b.Edit(ctx, "n", increment)
	is(t, "edit nothing", err, kv.ErrNotFound)
	rev := create(t, b, "n", 1)
	e, err := b.Edit(ctx, "n", func(int) (int, error) { return 0, kv.ErrKeep })
	if err != nil || e.Value != 1 || e.Revision != rev {
		t.Errorf("keep: got %v, %v, want 1 at revision %d", e, err, rev)
	}
	refused := errors.New("refused")
	_, err = b.Edit(ctx, "n", func(int) (int, error) { return 0, refused })
	is(t, "refuse", err, refused)
	_, err = b.Edit(ctx, "n", func(n int) (int, error) {
		update(t, b, "n", n+1, mustGet(t, b, "n").Revision) // always first
		return n, nil
	})
	is(t, "edit against a faster writer", err, kv.ErrContended)
}

func mustGet[T any](t testing.TB, b *kv.Bucket[T], key string) kv.Entry[T] {
	t.Helper()
	e, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// No edit is lost, however many writers there are.
func TestEditConcurrently(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 50
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	b := open[int](t, natstest.Connect(t, srv))
	create(t, b, "n", 0)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				switch _, err := b.Edit(t.Context(), "n", increment); {
				case err == nil:
					done++
				case !errors.Is(err, kv.ErrContended):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantValue(t, b, "n", writers*each)
}
