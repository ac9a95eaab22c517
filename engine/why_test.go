package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// because fails the test unless a job is where it is for a reason, which says
// all of some things.
func because(t *testing.T, eng *engine.Engine, id, code string, says ...string) engine.Reason {
	t.Helper()
	synctest.Wait()
	why, err := eng.Why(t.Context(), id)
	if err != nil || why.ID != id || why.Code != code {
		t.Errorf("%s: got %+v, %v, want code %s", id, why, err, code)
	}
	for _, part := range says {
		if !strings.Contains(why.Text, part) {
			t.Errorf("%s: %q does not say %q", id, why.Text, part)
		}
	}
	return why
}

// waitsFor returns what Get says that a job waits for.
func waitsFor(t *testing.T, eng *engine.Engine, id string) string {
	t.Helper()
	info, err := eng.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if info.Wait == nil {
		return ""
	}
	return *info.Wait
}

// alone is a worker that never is the owner.
func alone(slots int, queues ...string) engine.WorkerOptions {
	return engine.WorkerOptions{Slots: slots, Queues: queues, NoOwner: true}
}

// endless is a job that ends when it is told to.
func endless(kind string) *engine.Job[any, any] {
	return engine.NewJob(kind, func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
}

// A pending job says what keeps it from being taken; asking for the job says so
// too, but not in the first moment, and lists do not.
func TestWhyPending(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		submit(t, p.Engine, "job.one", 3)
		if wait := waitsFor(t, p.Engine, "job.1"); wait != "" {
			t.Errorf("at once it waits for %q", wait)
		}
		because(t, p.Engine, "job.1", "no_worker", "no node takes from queue job: start a worker with kind job.one")
		time.Sleep(2 * time.Second)
		why := because(t, p.Engine, "job.1", "no_worker")
		if wait := waitsFor(t, p.Engine, "job.1"); wait != why.Text {
			t.Errorf("it waits for %q, want %q", wait, why.Text)
		}
		list, err := p.List(t.Context(), engine.ListOptions{Queue: "job"})
		if err != nil || len(list) != 3 || list[0].Wait != nil {
			t.Errorf("got %+v, %v", list, err)
		}

		if _, err := p.Submit(t.Context(), "job.one", nil, engine.SubmitOptions{ID: "1", Queue: "other"}); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, "other.1", "no_worker", "no node takes from queue other: start a worker with kind job.one that takes from queue other")

		b := start(t, srv, "b", nil)
		stop := b.run(alone(1, "elsewhere"), endless("job.one"))
		because(t, p.Engine, "job.1", "no_worker", "no node takes from queue job, and node b has kind job.one for other queues: start one that takes from it")
		if err := stop(); err != nil {
			t.Fatal(err)
		}

		c, d := start(t, srv, "c", nil), start(t, srv, "d", nil)
		c.run(alone(1), endless("job.one"))
		d.run(alone(1), endless("job.one"))
		time.Sleep(2 * time.Second)
		busy := because(t, p.Engine, taken(t, p.Engine, "pending"), "busy",
			"nodes c, d have no free slot (of 2): queue job has 2 taken and 1 waiting, this one among them")
		if wait := waitsFor(t, p.Engine, busy.ID); wait != busy.Text {
			t.Errorf("it waits for %q, want %q", wait, busy.Text)
		}
	})
}

// A job that was handed back waits for a slot like any other.
func TestWhyHandedBack(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		stop := start(t, srv, "a", nil).run(alone(1), endless("job"))
		submit(t, p.Engine, "job", 1)
		because(t, p.Engine, "job.1", "running")
		start(t, srv, "b", nil).run(alone(1, "job", "other"), endless("job"), endless("other"))
		submit(t, p.Engine, "other", 1)
		because(t, p.Engine, "other.1", "running")
		if _, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "2", Queue: "other"}); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		because(t, p.Engine, "other.2", "busy", "node b has no free slot (of 1): queue other has 1 taken and 1 waiting, this one among them")
		because(t, p.Engine, "job.1", "busy", "node b has no free slot (of 1): queue job has 0 taken and 1 waiting, this one among them")
	})
}

// taken returns a job of queue job that is in a state.
func taken(t *testing.T, eng *engine.Engine, state string) string {
	t.Helper()
	list, err := eng.List(t.Context(), engine.ListOptions{Queue: "job", State: state})
	if err != nil || len(list) == 0 {
		t.Fatalf("no job of queue job is %s: %v", state, err)
	}
	return list[0].ID
}

// A job that a worker with a free slot is about to get says so.
func TestWhySoon(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, a := start(t, srv, "p", nil), start(t, srv, "a", nil)
		a.run(alone(1), endless("job"))
		time.Sleep(time.Second)
		a.link.Freeze()
		submit(t, p.Engine, "job", 1)
		because(t, p.Engine, "job.1", "soon", "it is about to be taken by node a")
		a.link.Thaw()
		time.Sleep(time.Second)
		because(t, p.Engine, "job.1", "running")
	})
}

// Workers of the queue that lack the kind are named, with what they have.
func TestWhyNoKind(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		for _, node := range []string{"a", "b", "c", "d"} {
			start(t, srv, node, nil).run(alone(1, "job"), endless("other."+node))
		}
		time.Sleep(time.Second)
		submit(t, p.Engine, "job", 1)
		time.Sleep(200 * time.Millisecond)
		why := because(t, p.Engine, "job.1", "no_kind",
			"nodes a (other.a), b (other.b), c (other.c) and 1 more take from queue job without a handler for kind job", "it is offered again at 2000-01-01T00:00:0")
		if why.State != "scheduled" || why.Due == nil {
			t.Errorf("got %+v", why)
		}
		e := start(t, srv, "e", nil)
		e.run(alone(1), endless("job"))
		because(t, p.Engine, "job.1", "no_kind", "it reached a worker without a handler for kind job; it is offered again at")
	})
}

// What waits for its time says why and until when.
func TestWhyDelayed(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(_ context.Context, snooze bool) (any, error) {
			if snooze {
				return nil, engine.Snooze(time.Hour)
			}
			return nil, errors.New("boom")
		}, engine.JobOptions{Retry: engine.Retry{Delay: time.Hour, Jitter: -1}}))
		for id, opts := range map[string]engine.SubmitOptions{"delay": {Delay: time.Hour}, "retry": {}, "snooze": {}} {
			opts.ID = id
			if _, err := p.Submit(t.Context(), "job", json.RawMessage(strconv.FormatBool(id == "snooze")), opts); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		because(t, p.Engine, "job.delay", "delay", "it was submitted for 2000-01-01T01:00:00Z")
		because(t, p.Engine, "job.retry", "retry", "it is tried again at 2000-01-01T01:00:00Z, after failure 1 of 5: boom")
		why := because(t, p.Engine, "job.snooze", "snooze", "its handler asked to be tried again at 2000-01-01T01:00:00Z")
		if why.State != "scheduled" || why.Due == nil || why.Node != nil {
			t.Errorf("got %+v", why)
		}
		for id, wait := range map[string]string{"job.delay": "delay", "job.retry": "retry", "job.snooze": "snooze"} {
			if got := waitsFor(t, p.Engine, id); got != wait {
				t.Errorf("%s waits for %q, want %q", id, got, wait)
			}
		}
	})
}

// A job that needs the owner says whether there is one.
func TestWhyNoOwner(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		p.run(alone(1), engine.NewJob("job", returns(nil, nil)))
		if _, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "1", Delay: time.Minute}); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, "job.1", "delay")
		time.Sleep(2 * time.Minute)
		because(t, p.Engine, "job.1", "no_owner", "it was due at 2000-01-01T00:01:00Z, and there is no owner to offer it to workers: start millrace serve, or a worker without --no-owner")
		serve(t, start(t, srv, "owner", nil).Engine)
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
	})
}

// A job without an item, which should not be, is the owner's to heal.
func TestWhyLostItem(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		submit(t, p.Engine, "job", 1)
		purge(t, p.nc, "mr_default_work")
		because(t, p.Engine, "job.1", "no_worker") // it may be on its way
		time.Sleep(2 * time.Second)
		because(t, p.Engine, "job.1", "no_owner", "it has lost its item of the work queue, and there is no owner")
		serve(t, start(t, srv, "owner", nil).Engine)
		time.Sleep(time.Second)
		because(t, p.Engine, "job.1", "owner", "it has lost its item of the work queue: node owner, the owner, is about to offer it")
		time.Sleep(time.Minute)
		because(t, p.Engine, "job.1", "no_worker")
	})
}

// A job that runs says where and since when, whether it was told to end, and
// that its node is gone, if it is.
func TestWhyRunning(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		release := make(chan struct{})
		deaf := engine.NewJob("job", func(context.Context, any) (any, error) { <-release; return nil, nil })
		a := start(t, srv, "a", nil)
		a.run(alone(2), deaf)
		time.Sleep(time.Second)
		submit(t, p.Engine, "job", 2)
		why := because(t, p.Engine, "job.1", "running", "it runs on node a since 2000-01-01T00:00:01Z")
		if why.Node == nil || *why.Node != "a" {
			t.Errorf("got %+v", why)
		}
		if _, err := p.Cancel(t.Context(), "job.2"); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, "job.2", "ending", "it was told to end at 2000-01-01T00:00:01Z (cancelled by request), and its attempt on node a has not ended yet")

		a.link.Down()
		time.Sleep(6 * time.Second) // its lease is over, and nobody has seen that yet
		because(t, p.Engine, "job.1", "offline", "node a, which ran it, is offline: it is free for others within 12s of that")
		because(t, p.Engine, "job.2", "offline", "node a, which ran it, is offline, and it was told to end: it does so within 12s of that")
		time.Sleep(14 * time.Second)
		because(t, p.Engine, "job.1", "no_worker", "no node takes from queue job, node a (offline) did: start a worker with kind job")
		because(t, p.Engine, "job.2", "ended", "it was cancelled at")
		close(release)
		start(t, srv, "b", nil).run(alone(1), engine.NewJob("job", returns(nil, nil)))
		ended(t, p.Engine, "job.1", "succeeded", 2, 1)
	})
}

// A job whose node died is free for others soon, and says what it waits for then.
func TestWhyFreed(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		a, b := start(t, srv, "a", nil), start(t, srv, "b", nil)
		a.run(alone(2), endless("job"))
		submit(t, p.Engine, "job", 1)
		time.Sleep(time.Second)
		b.run(alone(1, "job", "other"), endless("job"), endless("other"))
		submit(t, p.Engine, "other", 1)
		because(t, p.Engine, "other.1", "running", "on node b")
		a.link.Down()
		time.Sleep(20 * time.Second)
		because(t, p.Engine, "job.1", "busy", "node b has no free slot (of 1): queue job has")
		if _, err := p.Cancel(t.Context(), "other.1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Second)
		because(t, p.Engine, "job.1", "running", "it runs on node b since")
	})
}

// A job whose node died says if there is nobody to see to it.
func TestWhyNobodySees(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, a := start(t, srv, "p", nil), start(t, srv, "a", nil)
		a.run(alone(2), endless("job"))
		submit(t, p.Engine, "job", 1)
		time.Sleep(time.Second)
		a.link.Down()
		time.Sleep(20 * time.Second)
		because(t, p.Engine, "job.1", "offline", "node a, which ran it, is offline, but there is no owner to see to it: start millrace serve")
		start(t, srv, "a", nil).run(alone(1, "none"), endless("none"))
		time.Sleep(time.Second)
		because(t, p.Engine, "job.1", "offline", "node a, which ran it, has started anew since, but there is no owner")
	})
}

// What has ended says how; what never was is not found.
func TestWhyEnded(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		submit(t, p.Engine, "later", 1)
		if _, err := p.Cancel(t.Context(), "later.1"); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, "later.1", "ended", "it was cancelled at 2000-01-01T00:00:00Z: cancelled by request")
		p.run(engine.WorkerOptions{}, engine.NewJob("job", returns(nil, nil)), engine.NewJob("fail", func(context.Context, any) (any, error) {
			return nil, engine.Fail(errors.New("boom"))
		}))
		submit(t, p.Engine, "job", 1)
		submit(t, p.Engine, "fail", 1)
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		ended(t, p.Engine, "fail.1", "failed", 1, 1)
		because(t, p.Engine, "job.1", "ended", "it succeeded at 2000-01-01T00:00:00Z")
		because(t, p.Engine, "fail.1", "ended", "it failed at 2000-01-01T00:00:00Z: boom")
		if _, err := p.Why(t.Context(), "job.none"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		_, err := p.Why(t.Context(), "none")
		refused(t, err, "none")
	})
}
