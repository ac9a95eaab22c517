package kv_test

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
)

// immortal stores a value of a holder that is gone and that never expires, as a
// server that crashed may bring it back.
func immortal(t *testing.T, b *kv.Bucket[kv.Held]) (revision uint64) {
	t.Helper()
	revision, err := b.Create(t.Context(), "owner", kv.Held{Holder: "ghost", Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// A value that lost its time to live is taken over after two of them, and no
// sooner; without a vigil, never.
func TestLeaseVigil(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		before := immortal(t, b)
		opts := kv.LeaseOptions{TTL: ttl, Vigil: new(kv.Vigil)}
		_, err := kv.Take(t.Context(), b, "owner", "a", opts)
		is(t, "take at once", err, kv.ErrHeld)
		time.Sleep(2*ttl - time.Second)
		if _, err = kv.Take(t.Context(), b, "owner", "a", opts); !errors.Is(err, kv.ErrHeld) {
			t.Fatalf("taken too soon: %v", err)
		}
		time.Sleep(time.Second)
		_, err = kv.Take(t.Context(), b, "owner", "a", kv.LeaseOptions{TTL: ttl})
		is(t, "take without a vigil", err, kv.ErrHeld)
		l, err := kv.Take(t.Context(), b, "owner", "a", opts)
		if err != nil {
			t.Fatal(err)
		}
		if l.Epoch() <= before {
			t.Errorf("epoch %d follows revision %d", l.Epoch(), before)
		}
		is(t, "release", l.Release(t.Context()), nil)
	})
}

// A lease that is renewed is never taken over, however seldom anybody looks.
func TestVigilOverRenewed(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		l := take(t, b, "a")
		stop := keep(t, l)
		opts := kv.LeaseOptions{TTL: ttl, Vigil: new(kv.Vigil)}
		for _, wait := range []time.Duration{time.Second, ttl, 3 * ttl, 100 * ttl} {
			time.Sleep(wait)
			_, err := kv.Take(t.Context(), b, "owner", "b", opts)
			is(t, "take", err, kv.ErrHeld)
		}
		if !l.Valid() {
			t.Error("the lease was lost")
		}
		is(t, "keep", stop(), nil)
	})
}

// A renewal that lands between a look and the write of the taker wins.
func TestVigilRace(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		slow := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
			if w.Number == 1 {
				return natstest.Hold
			}
			return natstest.Pass
		}, "$KV.>")
		b := open[kv.Held](t, natstest.Connect(t, srv))
		before := immortal(t, b)
		opts := kv.LeaseOptions{TTL: ttl, Vigil: new(kv.Vigil)}
		over := open[kv.Held](t, slow.Connect(t))
		_, err := kv.Take(t.Context(), over, "owner", "a", opts)
		is(t, "look", err, kv.ErrHeld)
		time.Sleep(2 * ttl)
		taken := make(chan error)
		go func() {
			_, err := kv.Take(t.Context(), over, "owner", "a", opts)
			taken <- err
		}()
		time.Sleep(time.Second) // the write is on its way
		after, err := b.Update(t.Context(), "owner", kv.Held{Holder: "ghost", Token: "x", Epoch: before}, before)
		is(t, "renew", err, nil)
		slow.Release()
		is(t, "take", <-taken, kv.ErrHeld)
		if e := mustGet(t, b, "owner"); e.Revision != after {
			t.Errorf("the key is at revision %d, want that of the renewal, %d", e.Revision, after)
		}
	})
}
