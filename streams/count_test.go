package streams_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// An item counts until it is acknowledged, for its own queue.
func TestHeld(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		holds := func(queue string, want uint64) {
			t.Helper()
			time.Sleep(time.Second)
			if load := must(w.work.Load(t.Context(), queue))(t); load.Waiting+load.Taken != want {
				t.Errorf("queue %s holds %d items, want %d", queue, load.Waiting+load.Taken, want)
			}
		}
		w.serve("other")
		w.offer("a", "b", "c")
		holds("mail", 3)
		holds("other", 0)
		taken := w.pull(w.puller(), 2, time.Minute)
		holds("mail", 3)
		if err := errors.Join(taken[0].Ack(), taken[1].Nak(0)); err != nil {
			t.Fatal(err)
		}
		holds("mail", 2)
		if err := w.work.Withdraw(t.Context(), "", "mail", "b", math.MaxUint64); err != nil {
			t.Fatal(err)
		}
		holds("mail", 1)
		if _, err := w.work.Load(t.Context(), "unserved"); !errors.Is(err, streams.ErrNoConsumer) {
			t.Errorf("got %v, want ErrNoConsumer", err)
		}
	})
}

// The load of a queue tells what waits from what is taken, and whether a worker
// asks for more.
func TestLoad(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		is := func(want streams.Load) {
			t.Helper()
			time.Sleep(time.Second)
			if d := cmp.Diff(want, must(w.work.Load(t.Context(), "mail"))(t)); d != "" {
				t.Errorf("load (-want +got):\n%s", d)
			}
		}
		w.offer("a", "b", "c")
		p := w.puller()
		w.pull(p, 1, time.Minute)
		is(streams.Load{Waiting: 2, Taken: 1})
		w.pull(p, 2, time.Minute)
		asking, cancel := context.WithCancel(t.Context())
		var pulling sync.WaitGroup
		pulling.Go(func() { _, _ = p.Pull(asking, 1, time.Minute, func(*streams.Delivery, error) {}) })
		is(streams.Load{Taken: 3, Asking: 1})
		cancel()
		pulling.Wait()
		if _, err := w.work.Load(t.Context(), "unserved"); !errors.Is(err, streams.ErrNoConsumer) {
			t.Errorf("got %v, want ErrNoConsumer", err)
		}
	})
}

// Of many jobs those are found that have an item, in whatever hands it is.
func TestHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	want := map[string]bool{"mail.taken": true}
	ids := []string{"mail.taken", "mail.none", "other.taken"}
	w.offer("taken", "not-asked-for")
	w.pull(w.puller(), 1, time.Minute)
	for i := range 1021 {
		id := fmt.Sprint("n=", i)
		if ids = append(ids, "mail."+id); i%2 == 0 {
			want["mail."+id] = true
			w.offer(id, id)
		}
	}
	if d := cmp.Diff(want, must(w.work.Has(t.Context(), refs(ids...)))(t)); d != "" {
		t.Errorf("jobs with an item (-want +got):\n%s", d)
	}
	if got := must(w.work.Has(t.Context(), nil))(t); len(got) != 0 {
		t.Errorf("of no jobs got %v", got)
	}
}

// The timers are counted and listed, and only those that were there.
func TestTimersCount(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	list := func() (got []string) {
		t.Helper()
		err := c.timers.Subjects(t.Context(), func(purpose streams.Purpose, queue, local string) error {
			got = append(got, fmt.Sprint(purpose, " ", queue, " ", local))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if messages, last, err := c.timers.Count(t.Context()); messages != 0 || last != 0 || err != nil {
		t.Errorf("at first: %d timers up to %d, %v", messages, last, err)
	}
	if got := list(); got != nil {
		t.Errorf("at first: got %v", got)
	}
	c.set(due(noon, "b"))
	c.set(due(noon, "a"))
	c.set(event(streams.PurposeDeadline, "a"))
	c.set(due(noon, "b"))
	c.set(due(noon, "c"))
	foreign := ns.TimerSubject(noon, "later", "mail", "a")
	must(open(t, c.nc).Publish(t.Context(), foreign, nil))(t)
	if err := c.timers.Delete(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if messages, last, err := c.timers.Count(t.Context()); messages != 4 || last != 6 || err != nil {
		t.Errorf("got %d timers up to %d, %v, want 4 up to 6", messages, last, err)
	}
	if d := cmp.Diff([]string{"due mail a", "deadline mail a", "due mail b"}, list()); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	boom := errors.New("boom")
	if err := c.timers.Subjects(t.Context(), func(streams.Purpose, string, string) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v, want the function's own error", err)
	}
}

// A list that was given up says so.
func TestTimersSubjectsGivenUp(t *testing.T) {
	t.Parallel()
	c := newClockwork(t)
	c.set(due(noon, "a"))
	c.set(due(noon, "b"))
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	err := c.timers.Subjects(ctx, func(streams.Purpose, string, string) error { cancel(gone); return nil })
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want the cause of its context", err)
	}
}

// What is asked without assets is an error of one line.
func TestCountWithoutAssets(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Start(t, t.TempDir()))
	work, timers := must(streams.NewWork(ns, publisher(t, nc)))(t), must(streams.NewTimers(ns, publisher(t, nc)))(t)
	_, err := work.Load(t.Context(), "mail")
	oneLine(t, err, "streams: count items of queue mail")
	_, err = work.Has(t.Context(), refs("mail.a"))
	oneLine(t, err, "streams: look for items of 1 jobs")
	oneLine(t, timers.Subjects(t.Context(), nil), "streams: count timers")
	_, err = timers.Get(t.Context(), 1)
	oneLine(t, err, "streams: get timer 1")
	if errors.Is(err, streams.ErrNoTimer) {
		t.Error("a stream that is not there says that there is no timer")
	}
	oneLine(t, timers.Delete(t.Context(), 1), "streams: delete timer 1")
	oneLine(t, timers.Set(t.Context(), due(noon, "a")), "streams: set timer due of mail.a")
	oneLine(t, timers.Cancel(t.Context(), due(noon, "a")), "streams: cancel timer due of mail.a")
}
