package kv_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
)

// writes are the subjects of everything that changes a bucket.
var writes = []string{"$KV.>", "$JS.API.STREAM.MSG.DELETE.>"}

// faulty runs f once for each fault, in a bubble, on a link where the write
// after arm is called suffers that fault.
func faulty(t *testing.T, f func(t *testing.T, srv *server.Server, link *natstest.Link, fault natstest.Fault, arm func())) {
	for _, fault := range []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold} {
		t.Run(strings.ReplaceAll(fault.String(), " ", "-"), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				var armed atomic.Bool
				link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault {
					if armed.CompareAndSwap(true, false) {
						return fault
					}
					return natstest.Pass
				}, writes...)
				makeBucket(t, srv, true)
				f(t, srv, link, fault, func() { armed.Store(true) })
				if armed.Load() {
					t.Error("there was no write to fail")
				}
			})
		})
	}
}

// landed reports whether a write with that fault is stored, before a held one
// is released.
func landed(fault natstest.Fault) bool {
	return fault == natstest.LoseAnswer || fault == natstest.CutAfter
}

// A write whose answer is lost is unknown. What is stored depends on the fault,
// and writing again on what is read settles it: of two writes one succeeds.
func TestLostWrites(t *testing.T) {
	faulty(t, func(t *testing.T, srv *server.Server, link *natstest.Link, fault natstest.Fault, arm func()) {
		b, ctx := open[string](t, link.Connect(t)), t.Context()
		reader := open[string](t, natstest.Connect(t, srv))

		arm()
		_, err := b.Create(ctx, "a", "lost")
		if !kv.Unknown(err) || errors.Is(err, kv.ErrExists) {
			t.Fatalf("create: got %v, want an unknown outcome", err)
		}
		time.Sleep(time.Second) // to reconnect
		_, err = b.Create(ctx, "a", "second")
		if landed(fault) {
			is(t, "create again", err, kv.ErrExists)
			wantValue(t, reader, "a", "lost")
		} else {
			is(t, "create again", err, nil)
			wantValue(t, reader, "a", "second")
		}
		if fault == natstest.Hold {
			link.Release()
			wantValue(t, reader, "a", "second")
		}

		e, err := reader.Get(ctx, "a")
		is(t, "get", err, nil)
		arm()
		_, err = b.Update(ctx, "a", "lost update", e.Revision)
		if !kv.Unknown(err) || errors.Is(err, kv.ErrConflict) {
			t.Fatalf("update: got %v, want an unknown outcome", err)
		}
		time.Sleep(time.Second)
		_, err = b.Update(ctx, "a", "second update", e.Revision)
		if landed(fault) {
			is(t, "update again", err, kv.ErrConflict)
			wantValue(t, reader, "a", "lost update")
		} else {
			is(t, "update again", err, nil)
			wantValue(t, reader, "a", "second update")
		}
		if fault == natstest.Hold {
			link.Release()
			wantValue(t, reader, "a", "second update")
		}
	})
}

func TestLostDeletes(t *testing.T) {
	faulty(t, func(t *testing.T, srv *server.Server, link *natstest.Link, fault natstest.Fault, arm func()) {
		b, ctx := open[string](t, link.Connect(t)), t.Context()
		for _, way := range []struct {
			name string
			end  func(context.Context, string, uint64) error
			late error // of the second call if the first has landed
		}{{"delete", b.Delete, kv.ErrConflict}, {"remove", b.Remove, nil}} {
			rev := create(t, b, "a", "one")
			arm()
			if err := way.end(ctx, "a", rev); !kv.Unknown(err) {
				t.Errorf("%s: got %v, want an unknown outcome", way.name, err)
			}
			time.Sleep(time.Second)
			_, err := b.Get(ctx, "a")
			if landed(fault) {
				is(t, "get after "+way.name, err, kv.ErrNotFound)
				is(t, way.name+" again", way.end(ctx, "a", rev), way.late)
			} else {
				is(t, "get after "+way.name, err, nil)
				is(t, way.name+" again", way.end(ctx, "a", rev), nil)
			}
			rev = create(t, b, "a", "two")
			if fault == natstest.Hold {
				link.Release()
			}
			wantValue(t, b, "a", "two")
			is(t, "clean up", b.Delete(ctx, "a", rev), nil)
		}
	})
}

// An edit happens exactly once, whatever becomes of the answer.
func TestLostEdit(t *testing.T) {
	faulty(t, func(t *testing.T, srv *server.Server, link *natstest.Link, fault natstest.Fault, arm func()) {
		b := open[int](t, link.Connect(t))
		create(t, b, "n", 0)
		for want := 1; want <= 3; want++ {
			arm()
			e, err := b.Edit(t.Context(), "n", increment)
			if err != nil || e.Value != want {
				t.Fatalf("edit: got %v, %v, want %d", e.Value, err, want)
			}
			if fault == natstest.Hold {
				link.Release()
			}
			now, err := b.Get(t.Context(), "n")
			if err != nil || now.Value != want || now.Revision != e.Revision {
				t.Errorf("got %v, %v, want %d at revision %d", now, err, want, e.Revision)
			}
		}
	})
}

// An edit that cannot be settled says so.
func TestEditGivesUp(t *testing.T) {
	for _, by := range []string{"ctx", "another writer", "a delete"} {
		natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
			makeBucket(t, srv, true)
			link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
				return [...]natstest.Fault{natstest.Pass, natstest.DownAfter}[w.Number-1]
			}, writes...)
			b := open[int](t, link.Connect(t))
			create(t, b, "n", 0)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ended := make(chan error)
			go func() {
				_, err := b.Edit(ctx, "n", increment)
				ended <- err
			}()
			time.Sleep(time.Second)
			other := open[int](t, natstest.Connect(t, srv))
			e, err := other.Get(ctx, "n")
			is(t, "get", err, nil)
			switch by {
			case "another writer":
				update(t, other, "n", 10, e.Revision)
			case "a delete":
				is(t, "delete", other.Delete(ctx, "n", e.Revision), nil)
			}
			if by != "ctx" {
				link.Up()
			}
			is(t, "edit, stopped by "+by, <-ended, publish.ErrUnknown)
		})
	}
}

func increment(n int) (int, error) { return n + 1, nil }
