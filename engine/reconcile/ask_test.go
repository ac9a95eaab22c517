package reconcile_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/streams"
)

// Whoever asks is told what a look at all jobs has brought.
func TestAsk(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.own("owner")
		w.submit(10, "j", nil)
		time.Sleep(time.Minute)
		ask := func() reconcile.Report {
			t.Helper()
			return must(reconcile.Ask(t.Context(), w.pub, ns))(t)
		}
		if diff := cmp.Diff(reconcile.Report{Looked: 10, Healed: lacks{}, Total: lacks{}}, ask()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		w.purgeSubject(ns.WorkStream(), ns.WorkSubject("q", streams.Class, "j3"))
		if err := w.js.DeleteConsumer(t.Context(), ns.WorkStream(), "q"); err != nil {
			t.Fatal(err)
		}
		want := reconcile.Report{Looked: 10, Healed: lacks{store.LackItem: 1}, Total: lacks{store.LackItem: 1}, Consumers: 1}
		if diff := cmp.Diff(want, ask()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if n := w.items("q.j3"); n != 1 {
			t.Error("the job has no item")
		}
	})
}

// Many may ask at the same time, also before the owner knows all jobs.
func TestAskAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.submit(10, "j", nil)
		time.Sleep(time.Minute)
		w.purge(ns.WorkStream())
		o := w.own("owner")
		healed := make([]int, 20)
		var asking sync.WaitGroup
		for i := range healed {
			asking.Go(func() {
				time.Sleep(time.Duration(i+1) * 100 * time.Millisecond)
				report, err := reconcile.Ask(t.Context(), w.pub, ns)
				if err != nil {
					t.Error(err)
				}
				healed[i] = report.Looked
			})
		}
		asking.Wait()
		for i, n := range healed {
			if n != 10 {
				t.Errorf("answer %d is about %d jobs, want 10", i, n)
			}
		}
		w.wantHealed(o, lacks{store.LackItem: 10})
	})
}

// Without an owner there is nobody to ask, and one that ends says so.
func TestAskNobody(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, err := reconcile.Ask(t.Context(), w.pub, ns)
		if err == nil || !strings.Contains(err.Error(), "there is none now: run") || strings.Contains(err.Error(), "\n") {
			t.Errorf("without an owner: %v", err)
		}
		o := w.own("owner")
		time.Sleep(time.Minute)
		o.link.Down() // it cannot look at anything
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := reconcile.Ask(ctx, w.pub, ns); err == nil {
			t.Error("an owner that is cut off answered")
		}
	})
}

// An owner that ends answers those who still wait.
func TestAskEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		failed := make(chan error, 1)
		go func() {
			_, err := reconcile.Ask(t.Context(), w.pub, ns)
			failed <- err
		}()
		time.Sleep(100 * time.Millisecond) // the first round is not complete before a second
		o.stop()
		if err := <-failed; err == nil || !strings.Contains(err.Error(), "ask again") {
			t.Errorf("asking an owner that ends: %v", err)
		}
	})
}

// An owner whose lease has ended ends, and heals nothing any more.
func TestLeaseEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		time.Sleep(time.Minute)
		o.link.Down()
		time.Sleep(2 * lease)
		if o.lease.Valid() {
			t.Fatal("the lease lasts")
		}
		o.link.Up()
		w.create(job("j"))
		time.Sleep(time.Minute)
		w.wantHealed(o, lacks{})
		if _, err := reconcile.Ask(t.Context(), w.pub, ns); err == nil {
			t.Error("it still answers")
		}
	})
}

// What is required is said at once.
func TestOptions(t *testing.T) {
	t.Parallel()
	err := reconcile.New(nil, reconcile.Options{}).Run(t.Context())
	for _, what := range []string{"lease", "owner", "clock", "store", "work", "timers"} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("without options: %v, want a word about %s", err, what)
		}
	}
}
