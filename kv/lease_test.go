package kv_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
)

const ttl = 6 * time.Second

// deadline is how long a holder believes in a lease that is not renewed.
const deadline = ttl - ttl/12

var leaseOptions = kv.LeaseOptions{TTL: ttl}

// take takes the lease owner, which must be free.
func take(t testing.TB, b *kv.Bucket[kv.Held], holder string) *kv.Lease {
	t.Helper()
	l, err := kv.Take(t.Context(), b, "owner", holder, leaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		l.Release(ctx) // many a test has ended it
	})
	return l
}

// keep keeps l in the background. The function that it returns ends that, and
// returns what Keep returned.
func keep(t testing.TB, l *kv.Lease) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Keep(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })
	return stop
}

// lost fails the test unless the lease has ended as it should.
func lost(t testing.TB, l *kv.Lease) {
	t.Helper()
	if l.Valid() || l.Unbroken() != 0 {
		t.Errorf("a lost lease is valid %v, unbroken for %v", l.Valid(), l.Unbroken())
	}
	is(t, "cause", context.Cause(l.Context()), kv.ErrLeaseLost)
}

// A lease that is kept lives for hours, under one epoch, and nobody else gets it.
func TestLeaseIsKept(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		start := time.Now()
		l := take(t, b, "a")
		if e := mustGet(t, b, "owner"); e.Value != (kv.Held{Holder: "a", Token: l.Token()}) || kv.EpochOf(e) != l.Epoch() {
			t.Errorf("stored %v, want holder a and an epoch to be filled in, %d", e, l.Epoch())
		}
		stop := keep(t, l)
		for range 6 {
			time.Sleep(30 * time.Minute)
			_, err := kv.Take(t.Context(), b, "owner", "b", leaseOptions)
			if is(t, "take", err, kv.ErrHeld); err != nil && !strings.Contains(err.Error(), "by a") {
				t.Errorf("%v does not name the holder", err)
			}
			e := mustGet(t, b, "owner")
			if want := (kv.Held{Holder: "a", Token: l.Token(), Epoch: l.Epoch()}); e.Value != want || kv.EpochOf(e) != l.Epoch() {
				t.Errorf("stored %v, want %v", e.Value, want)
			}
			if age := time.Since(e.Stored); age > ttl/3 {
				t.Errorf("renewed %v ago", age)
			}
			if !l.Valid() || l.Context().Err() != nil || l.Unbroken() != time.Since(start) {
				t.Errorf("valid %v, unbroken for %v of %v", l.Valid(), l.Unbroken(), time.Since(start))
			}
		}
		is(t, "keep", stop(), nil)
	})
}

// A lease that is not renewed ends for its holder before it does for others.
func TestLeaseExpires(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		start := time.Now()
		l := take(t, b, "a")
		heard := make(chan time.Duration, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- b.Watch(ctx, "owner", func(e kv.Event[kv.Held]) {
				if e.Kind == kv.Deleted {
					heard <- time.Since(start)
				}
			})
		}()
		<-l.Context().Done()
		if after := time.Since(start); after != deadline {
			t.Errorf("the holder stopped after %v, want %v", after, deadline)
		}
		lost(t, l)
		is(t, "keep", l.Keep(t.Context()), kv.ErrLeaseLost)
		_, err := kv.Take(t.Context(), b, "owner", "b", leaseOptions)
		is(t, "take before its end", err, kv.ErrHeld)
		if after := <-heard; after < ttl || after > ttl+time.Second {
			t.Errorf("others heard after %v, want %v", after, ttl)
		}
		next := take(t, b, "b")
		if next.Epoch() <= l.Epoch() {
			t.Errorf("epoch went from %d to %d", l.Epoch(), next.Epoch())
		}
		cancel()
		is(t, "watch", <-ended, nil)
	})
}

// A lease that is released can be taken at once.
func TestLeaseRelease(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		epoch, start := uint64(0), time.Now()
		for _, holder := range []string{"a", "b", "a"} {
			l := take(t, b, holder)
			if l.Epoch() <= epoch {
				t.Errorf("epoch went from %d to %d", epoch, l.Epoch())
			}
			epoch = l.Epoch()
			stop := keep(t, l)
			is(t, "keep", stop(), nil)
			is(t, "release", l.Release(t.Context()), nil)
			lost(t, l)
			is(t, "release again", l.Release(t.Context()), nil)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("three holders took %v", took)
		}
	})
}

// An earlier lease of the same process is replaced, and nobody else's.
func TestLeaseTakeOver(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		old := take(t, b, "a")
		stop := keep(t, old)
		opts := leaseOptions
		_, err := kv.Take(t.Context(), b, "owner", "a", opts)
		is(t, "take what is not known to be its own", err, kv.ErrHeld)
		opts.Mine = true
		_, err = kv.Take(t.Context(), b, "owner", "b", opts)
		is(t, "take what somebody else has", err, kv.ErrHeld)
		l, err := kv.Take(t.Context(), b, "owner", "a", opts)
		is(t, "take over", err, nil)
		if l.Epoch() <= old.Epoch() {
			t.Errorf("epoch went from %d to %d", old.Epoch(), l.Epoch())
		}
		<-old.Context().Done()
		lost(t, old)
		is(t, "keep", stop(), kv.ErrLeaseLost)
		is(t, "release the old one", old.Release(t.Context()), nil)
		if e := mustGet(t, b, "owner"); e.Value.Token != l.Token() {
			t.Error("the old lease released the new one")
		}
		is(t, "release", l.Release(t.Context()), nil)
	})
}

// Taking a lease works whatever becomes of the answer, and a late write of an
// earlier try changes nothing.
func TestLeaseTakeFaults(t *testing.T) {
	faulty(t, func(t *testing.T, srv *server.Server, link *natstest.Link, fault natstest.Fault, arm func()) {
		b := open[kv.Held](t, link.Connect(t))
		arm()
		start := time.Now()
		l := take(t, b, "a")
		e := mustGet(t, b, "owner")
		if e.Value.Token != l.Token() || e.Revision != l.Epoch() {
			t.Errorf("stored %v, want token %s at revision %d", e, l.Token(), l.Epoch())
		}
		if fault == natstest.Hold {
			link.Release()
			if now := mustGet(t, b, "owner"); now != e {
				t.Errorf("a late write made %v of %v", now, e)
			}
		}
		stop := keep(t, l)
		time.Sleep(time.Hour + 100*time.Millisecond) // not in the moment of a renewal, which the fault would hit
		if !l.Valid() {
			t.Errorf("not valid after %v", time.Since(start))
		}
		is(t, "keep", stop(), nil)
		arm()
		is(t, "release", l.Release(t.Context()), nil)
		_, err := b.Get(t.Context(), "owner")
		is(t, "get what was released", err, kv.ErrNotFound)
	})
}

// Taking gives up when its context ends. What it may have left is released by
// time.
func TestLeaseTakeGivesUp(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.DownAfter }, "$KV.>")
		b := open[kv.Held](t, link.Connect(t))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := kv.Take(ctx, b, "owner", "a", leaseOptions)
		if !kv.Unknown(err) {
			t.Errorf("got %v, want an unknown outcome", err)
		}
		_, err = kv.Take(t.Context(), b, "owner", "a", leaseOptions)
		if err == nil || kv.Unknown(err) {
			t.Errorf("while down: got %v, want a certain error", err)
		}
		take(t, open[kv.Held](t, natstest.Connect(t, srv)), "b")
	})
}

// A lease survives any fault of a renewal, for hours.
func TestLeaseRenewFaults(t *testing.T) {
	faults := []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold}
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
			if w.Number%3 == 0 {
				return faults[w.Number/3%len(faults)]
			}
			return natstest.Pass
		}, "$KV.>")
		b := open[kv.Held](t, link.Connect(t))
		reader := open[kv.Held](t, natstest.Connect(t, srv))
		l := take(t, b, "a")
		stop := keep(t, l)
		for range 120 {
			time.Sleep(time.Minute)
			link.Release() // late renewals land now
			if !l.Valid() {
				t.Fatal("the lease is lost")
			}
			if e := mustGet(t, reader, "owner"); e.Value.Token != l.Token() || kv.EpochOf(e) != l.Epoch() {
				t.Fatalf("stored %v, want epoch %d", e, l.Epoch())
			}
		}
		is(t, "keep", stop(), nil)
	})
}

// A renewal that is not answered is sent again after a second.
func TestLeaseRenewsAgain(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		start := time.Now()
		var sent []time.Duration
		link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
			sent = append(sent, time.Since(start))
			if w.Number == 2 || w.Number == 3 {
				return natstest.Hold
			}
			return natstest.Pass
		}, "$KV.>")
		l := take(t, open[kv.Held](t, link.Connect(t)), "a")
		stop := keep(t, l)
		time.Sleep(7 * time.Second)
		is(t, "keep", stop(), nil)
		for i, want := range []time.Duration{0, 2, 3, 4, 6} {
			if i >= len(sent) || sent[i] != want*time.Second {
				t.Fatalf("sent at %v, want 0, 2, 3, 4 and 6 s", sent)
			}
		}
	})
}

// A connection that is away for less than the lease costs nothing but the
// unbroken time. The renewal goes out as soon as it is back.
func TestLeaseShortOutage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, nil, "$KV.>")
		l := take(t, open[kv.Held](t, link.Connect(t)), "a")
		stop := keep(t, l)
		for range 20 {
			time.Sleep(time.Minute)
			for last := len(link.Writes()); len(link.Writes()) == last; { // to just after a renewal
				time.Sleep(50 * time.Millisecond)
			}
			synctest.Wait() // it is answered
			link.Down()
			time.Sleep(5200 * time.Millisecond)
			if l.Unbroken() != 0 {
				t.Errorf("unbroken for %v while away", l.Unbroken())
			}
			back := time.Now()
			link.Up()
			time.Sleep(time.Second)
			if !l.Valid() {
				t.Fatal("the lease is lost")
			}
			if u := l.Unbroken(); u == 0 || u > time.Since(back) {
				t.Errorf("unbroken for %v, want less than %v", u, time.Since(back))
			}
		}
		is(t, "keep", stop(), nil)
	})
}

// A connection that is away for longer ends the lease at its deadline.
func TestLeaseLongOutage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, nil, "$KV.>")
		nc := link.Connect(t)
		b := open[kv.Held](t, nc)
		l := take(t, b, "a")
		stop := keep(t, l)
		time.Sleep(time.Minute + time.Millisecond) // just after a renewal
		start := time.Now()
		link.Down()
		<-l.Context().Done()
		if after := time.Since(start).Round(10 * time.Millisecond); after != deadline {
			t.Errorf("lost after %v, want %v", after, deadline)
		}
		lost(t, l)
		is(t, "keep", stop(), kv.ErrLeaseLost)
		time.Sleep(time.Minute)
		link.Up()
		time.Sleep(time.Second)
		lost(t, l)
		if next := take(t, b, "a"); next.Epoch() <= l.Epoch() {
			t.Errorf("epoch went from %d to %d", l.Epoch(), next.Epoch())
		}
	})
}

// A restart of the server that is shorter than the lease ends no lease, a
// longer one ends it.
func TestLeaseServerRestart(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		dir := t.TempDir()
		srv := natstest.Start(t, dir)
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, nil, "$KV.>")
		b := open[kv.Held](t, link.Connect(t))
		restart := func(pause time.Duration) {
			link.Down()
			natstest.Stop(srv, link)
			time.Sleep(pause)
			srv = natstest.Start(t, dir)
			link.Reroute(srv)
			link.Up()
			time.Sleep(time.Second)
		}
		l := take(t, b, "a")
		stop := keep(t, l)
		for range 5 {
			time.Sleep(30*time.Second + time.Millisecond)
			restart(4 * time.Second)
			if e := mustGet(t, b, "owner"); !l.Valid() || e.Value.Token != l.Token() {
				t.Fatalf("a short restart: valid %v, stored %v", l.Valid(), e)
			}
		}
		restart(2 * ttl)
		lost(t, l)
		is(t, "keep", stop(), kv.ErrLeaseLost)
		if _, err := kv.Take(t.Context(), b, "owner", "b", leaseOptions); err != nil {
			is(t, "take", err, kv.ErrHeld) // the server may not have expired it yet
			time.Sleep(time.Second)
		}
		if e, err := b.Get(t.Context(), "owner"); err == nil && e.Value.Holder == "a" {
			t.Error("the lost lease is stored")
		}
	})
}

// A holder whose key is deleted or taken by somebody else loses the lease with
// its next renewal.
func TestLeaseStolen(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[kv.Held](t, natstest.Connect(t, srv))
		for _, how := range []string{"deleted", "removed", "replaced"} {
			l := take(t, b, "a")
			stop := keep(t, l)
			e := mustGet(t, b, "owner")
			switch how {
			case "deleted":
				is(t, how, b.Delete(t.Context(), "owner", e.Revision), nil)
			case "removed":
				is(t, how, b.Remove(t.Context(), "owner", e.Revision), nil)
			case "replaced":
				update(t, b, "owner", kv.Held{Holder: "b", Token: "b"}, e.Revision)
			}
			start := time.Now()
			<-l.Context().Done()
			if after := time.Since(start); after > ttl/3 {
				t.Errorf("%s: lost after %v", how, after)
			}
			is(t, "keep", stop(), kv.ErrLeaseLost)
			lost(t, l)
		}
	})
}

func TestLeaseOptions(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b := open[kv.Held](t, natstest.Connect(t, srv))
	for _, opts := range []kv.LeaseOptions{{}, {TTL: 1500 * time.Millisecond}, {TTL: time.Second, Margin: time.Second}, {TTL: time.Second, Margin: -1}} {
		if _, err := kv.Take(t.Context(), b, "owner", "a", opts); err == nil || errors.Is(err, kv.ErrHeld) {
			t.Errorf("%+v: got %v, want a complaint", opts, err)
		}
	}
}
