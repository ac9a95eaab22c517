package kv_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

func TestPut(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b, ctx := open[int](t, natstest.Connect(t, srv)), t.Context()

	e, err := b.Put(ctx, "n", func(was kv.Entry[int]) (int, error) { return 5, kv.ErrKeep })
	if err != nil || e.Revision != 0 || e.Key != "n" {
		t.Errorf("keep nothing: got %v, %v", e, err)
	}
	refused := errors.New("refused")
	refuse := func(kv.Entry[int]) (int, error) { return 0, refused }
	_, err = b.Put(ctx, "n", refuse)
	is(t, "refuse to create", err, refused)
	_, err = b.Put(ctx, "n", func(kv.Entry[int]) (int, error) { return 0, kv.ErrNotFound })
	is(t, "refuse as not found", err, kv.ErrNotFound)

	e, err = b.Put(ctx, "n", addOne)
	if now := mustGet(t, b, "n"); err != nil || e.Value != 1 || e.Revision != now.Revision {
		t.Errorf("create: got %v, %v, want what is there: %v", e, err, now)
	}
	var seen kv.Entry[int]
	_, err = b.Put(ctx, "n", func(was kv.Entry[int]) (int, error) { seen = was; return 7, nil })
	is(t, "edit", err, nil)
	if seen.Value != 1 || seen.Revision != e.Revision || seen.Stored.IsZero() {
		t.Errorf("the edit was given %v, want 1 at revision %d with its time", seen, e.Revision)
	}
	_, err = b.Put(ctx, "n", refuse)
	is(t, "refuse to edit", err, refused)
	wantValue(t, b, "n", 7)
}

func addOne(was kv.Entry[int]) (int, error) { return was.Value + 1, nil }

// No put is lost, however many writers begin with nothing, and some delete.
func TestPutConcurrently(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 30
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b := open[int](t, natstest.Connect(t, srv))
	var dropped int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				switch _, err := b.Put(t.Context(), "n", addOne); {
				case err == nil:
					done++
				case !errors.Is(err, kv.ErrContended):
					t.Error(err)
					return
				}
				if done == each/2 {
					last := 0
					err := b.Drop(t.Context(), "n", func(was kv.Entry[int]) error { last = was.Value; return nil })
					if err == nil {
						mu.Lock()
						dropped += last
						mu.Unlock()
					}
				}
			}
		})
	}
	wg.Wait()
	if got := mustGet(t, b, "n").Value + dropped; got != writers*each {
		t.Errorf("%d puts are accounted for, want %d", got, writers*each)
	}
}

// A put and a drop are settled, whatever becomes of the answer.
func TestLostPut(t *testing.T) {
	faulty(t, func(t *testing.T, srv *server.Server, link *natstest.Link, fault natstest.Fault, arm func()) {
		b := open[string](t, link.Connect(t))
		reader := open[string](t, natstest.Connect(t, srv))
		for range 2 { // over nothing, then over a marker
			arm()
			e, err := b.Put(t.Context(), "a", func(kv.Entry[string]) (string, error) { return "one", nil })
			if err != nil || e.Value != "one" {
				t.Fatalf("put: got %v, %v", e, err)
			}
			if fault == natstest.Hold {
				link.Release()
			}
			if now := mustGet(t, reader, "a"); now.Value != "one" || now.Revision != e.Revision {
				t.Errorf("got %v, want one at revision %d", now, e.Revision)
			}
			arm()
			is(t, "drop", b.Drop(t.Context(), "a", nil), nil)
			if fault == natstest.Hold {
				link.Release()
			}
			_, err = reader.Get(t.Context(), "a")
			is(t, "get", err, kv.ErrNotFound)
			is(t, "drop nothing", b.Drop(t.Context(), "a", nil), kv.ErrNotFound)
		}
	})
}

// What cannot be settled in time is unknown.
func TestPutGivesUp(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.DownAfter }, writes...)
		b := open[int](t, link.Connect(t))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := b.Put(ctx, "n", addOne)
		is(t, "put", err, publish.ErrUnknown)
	})
}

func TestDropLooks(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b := open[int](t, natstest.Connect(t, srv))
	create(t, b, "n", 1)
	refused := errors.New("refused")
	is(t, "drop", b.Drop(t.Context(), "n", func(kv.Entry[int]) error { return refused }), refused)
	wantValue(t, b, "n", 1)

	raced := false
	err := b.Drop(t.Context(), "n", func(was kv.Entry[int]) error {
		if !raced {
			raced = true
			update(t, b, "n", 2, was.Revision)
		}
		return nil
	})
	is(t, "drop against another writer", err, nil)
	_, err = b.Get(t.Context(), "n")
	is(t, "get", err, kv.ErrNotFound)
}
