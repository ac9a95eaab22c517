package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// lasting is a job that takes a minute.
func lasting(l *ledger) *engine.Job[any, any] {
	return engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
		defer l.enter(ctx)()
		select {
		case <-time.After(time.Minute):
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
}

// pauseWorld returns a process that asks and one that works, and starts an owner.
func pauseWorld(t *testing.T, srv *server.Server) (asker, worker *process, l *ledger) {
	t.Helper()
	serve(t, start(t, srv, "owner", nil).Engine)
	return start(t, srv, "asker", nil), start(t, srv, "w", nil), newLedger()
}

func pauseQueue(t *testing.T, p *process, queue string) {
	t.Helper()
	if got, err := p.PauseQueue(t.Context(), queue); err != nil || !got.IsPaused() {
		t.Fatalf("pause: %+v, %v", got, err)
	}
}

func resumeQueue(t *testing.T, p *process, queue string) {
	t.Helper()
	if got, err := p.ResumeQueue(t.Context(), queue); err != nil || got.IsPaused() {
		t.Fatalf("resume: %+v, %v", got, err)
	}
}

func limitQueue(t *testing.T, p *process, queue string, l engine.QueueLimits) {
	t.Helper()
	if _, err := p.LimitQueue(t.Context(), queue, l); err != nil {
		t.Fatal(err)
	}
}

// began reports how many jobs were ever started.
func (l *ledger) began() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.starts)
}

// A queue is paused by one write, whatever it holds: what runs goes on, nothing
// starts, no other queue is held up, and when it is resumed it goes on at once.
func TestPauseQueue(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		_, w, l := pauseWorld(t, srv)
		var writes atomic.Int64
		p := start(t, srv, "p", func(natstest.Write) natstest.Fault { writes.Add(1); return natstest.Pass }, "$KV.>", "mr.>", "$JS.API.CONSUMER.>")
		other := engine.NewJob("other", returns(nil, nil))
		w.run(engine.WorkerOptions{Slots: 2}, lasting(l), other)
		submit(t, p.Engine, "job", 6)
		time.Sleep(5 * time.Second)
		before := writes.Load()
		pauseQueue(t, p, "job")
		if n := writes.Load() - before; n != 1 {
			t.Errorf("to pause took %d writes", n)
		}
		synctest.Wait()
		because(t, p.Engine, taken(t, p.Engine, "pending"), "paused", "queue job is paused")
		time.Sleep(5 * time.Minute)
		if l.began() != 2 || l.running() != 0 {
			t.Errorf("%d jobs have started, %d run, want 2, 0", l.began(), l.running())
		}
		submit(t, p.Engine, "other", 1)
		ended(t, p.Engine, "other.1", "succeeded", 1, 0)
		resumeQueue(t, p, "job")
		time.Sleep(time.Second)
		if l.began() != 4 || l.running() != 2 {
			t.Errorf("%d jobs have started, %d run, want 4, 2", l.began(), l.running())
		}
		ended(t, p.Engine, "job.6", "succeeded", 1, 0)
	})
}

// A queue that is paused before there is anything of it, or while its workers
// start anew, stays paused; one whose definition is deleted is not.
func TestPauseOutlives(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, l := pauseWorld(t, srv)
		pauseQueue(t, p, "job")
		submit(t, p.Engine, "job", 1)
		for range 3 {
			stop := w.run(engine.WorkerOptions{}, lasting(l))
			time.Sleep(2 * time.Minute)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			w = start(t, srv, "w", nil)
		}
		if l.began() != 0 {
			t.Fatal("a job of a paused queue has started")
		}
		w.run(engine.WorkerOptions{}, lasting(l))
		time.Sleep(time.Minute)
		if err := p.DeleteQueue(t.Context(), "job"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if l.running() != 1 {
			t.Error("the definition is deleted, and the job does not run")
		}
	})
}

// Jobs that fail, are due or come back in a paused queue wait like others.
func TestPauseHoldsRetries(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, _ := pauseWorld(t, srv)
		var tries atomic.Int64
		w.run(engine.WorkerOptions{}, engine.NewJob("job", func(context.Context, any) (any, error) {
			if tries.Add(1) == 1 {
				time.Sleep(time.Second)
				return nil, errors.New("boom")
			}
			return nil, nil
		}))
		submit(t, p.Engine, "job", 1)
		if _, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "later", Delay: time.Minute}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // the handler is half through
		pauseQueue(t, p, "job")
		time.Sleep(5 * time.Minute)
		if n := tries.Load(); n > 1 {
			t.Fatalf("%d attempts of a paused queue were started", n)
		}
		resumeQueue(t, p, "job")
		time.Sleep(2 * time.Second)
		for _, id := range []string{"job.1", "job.later"} {
			if info, err := p.Get(t.Context(), id); err != nil || info.State != "succeeded" {
				why, _ := p.Why(t.Context(), id)
				t.Errorf("%s: %+v, %v: %+v", id, info, err, why)
			}
		}
	})
}

// A worker that is cut off while its queue is paused, or whose server restarts,
// starts nothing on its return, and hears of the end of the pause.
func TestPauseOfTheStale(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, l := pauseWorld(t, srv)
		w.run(engine.WorkerOptions{}, lasting(l))
		time.Sleep(5 * time.Second)
		w.link.Down()
		time.Sleep(5 * time.Second)
		pauseQueue(t, p, "job")
		submit(t, p.Engine, "job", 3)
		time.Sleep(time.Minute)
		w.link.Up()
		time.Sleep(5 * time.Minute)
		if l.began() != 0 {
			t.Errorf("%d jobs have started", l.began())
		}
		resumeQueue(t, p, "job")
		time.Sleep(time.Second)
		if l.running() != 3 {
			t.Errorf("%d jobs run, want 3", l.running())
		}
	})
}

// A limit holds over all workers from when it is given, can be changed and lifted,
// and says why a job waits.
func TestLimitQueue(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, l := pauseWorld(t, srv)
		limitQueue(t, p, "job", engine.QueueLimits{Concurrency: new(3)})
		w.run(engine.WorkerOptions{}, lasting(l))
		start(t, srv, "w2", nil).run(engine.WorkerOptions{}, lasting(l))
		submit(t, p.Engine, "job", 100)
		runs := func(want int) {
			t.Helper()
			time.Sleep(110 * time.Second) // whatever ran before has ended, and nothing ends now
			if l.running() != want {
				t.Errorf("%d jobs run at once, want %d", l.running(), want)
			}
		}
		runs(3)
		if l.most != 3 {
			t.Errorf("%d jobs ran at once, want 3", l.most)
		}
		because(t, p.Engine, taken(t, p.Engine, "pending"), "limit", "queue job runs 3 at once, and has 3 taken and ")
		limitQueue(t, p, "job", engine.QueueLimits{Concurrency: new(5)})
		runs(5)
		limitQueue(t, p, "job", engine.QueueLimits{Concurrency: new(1)})
		runs(1)
		limitQueue(t, p, "job", engine.QueueLimits{Concurrency: new(0)})
		runs(20)
		limitQueue(t, p, "job", engine.QueueLimits{Concurrency: new(2)})
		runs(2)
	})
}

// If a process dies at any of its requests while it changes a limit, the owner
// finishes what it began, and asking again does no harm.
func TestLimitCrashPoints(t *testing.T) {
	const definitions, consumers = "$KV.mr_default_config.>", "$JS.API.CONSUMER.>"
	limit := func(ctx context.Context, p *process) error {
		_, err := p.LimitQueue(ctx, "job", engine.QueueLimits{Concurrency: new(2)})
		return err
	}
	tell := func(t *testing.T, srv *server.Server, n int, fault natstest.Fault) (points []string) {
		p, w, l := pauseWorld(t, srv)
		w.run(engine.WorkerOptions{}, lasting(l))
		submit(t, p.Engine, "job", 40)
		time.Sleep(time.Second)
		var armed atomic.Bool
		victim := start(t, srv, "victim", func(write natstest.Write) natstest.Fault {
			if !armed.Load() {
				return natstest.Pass
			}
			points = append(points, write.Subject)
			if len(points) == n {
				return fault
			}
			return natstest.Pass
		}, definitions, consumers)
		armed.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := limit(ctx, victim)
		armed.Store(false)
		time.Sleep(2 * time.Minute) // for the owner's patrol, and for what runs to end
		stored, getErr := p.Queue(t.Context(), "job")
		if getErr != nil || err == nil && stored.Concurrency != 2 {
			t.Fatalf("the limit is %d, %v, and changing it returned %v", stored.Concurrency, getErr, err)
		}
		if err == nil || stored.Concurrency == 2 {
			if l.running() > 2 {
				t.Errorf("the limit is 2, and %d jobs run", l.running())
			}
			return points
		}
		if err := limit(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return points
	}
	var points []string
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) { points = tell(t, srv, 0, natstest.Pass) })
	if len(points) < 3 {
		t.Fatalf("the story has the writes %v", points)
	}
	faults := []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer}
	for i, point := range points {
		if strings.Contains(point, "=") {
			continue // the consumer of a class that is not there
		}
		for _, fault := range faults {
			t.Run(strings.Join([]string{point, fault.String()}, " "), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) { tell(t, srv, i+1, fault) })
			})
		}
	}
}

// Records stay for as long as their queue says when the job ends, also where a
// process ends it that does nothing else for long.
func TestQueueRetention(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, _ := pauseWorld(t, srv)
		idle := start(t, srv, "idle", nil)
		job := engine.NewJob("job", func(_ context.Context, bad bool) (any, error) {
			if bad {
				return nil, engine.Fail(errors.New("boom"))
			}
			return nil, nil
		})
		w.run(engine.WorkerOptions{}, job)
		time.Sleep(2 * time.Second)
		ten := spec.Duration(10 * time.Minute)
		limitQueue(t, p, "job", engine.QueueLimits{Succeeded: &ten, Cancelled: new(2 * ten), Failed: new(3 * ten)})
		time.Sleep(time.Minute)
		for id, bad := range map[string]bool{"good": false, "bad": true} {
			if _, err := job.Submit(t.Context(), p.Engine, bad, engine.SubmitOptions{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := job.Submit(t.Context(), p.Engine, false, engine.SubmitOptions{ID: "late", Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if _, err := idle.Cancel(t.Context(), "job.late"); err != nil {
			t.Fatal(err)
		}
		there := func(want ...string) {
			t.Helper()
			got := map[string]bool{}
			for _, id := range []string{"good", "late", "bad"} {
				_, err := p.Get(t.Context(), "job."+id)
				if err != nil && !errors.Is(err, engine.ErrNotFound) {
					t.Fatal(err)
				}
				got[id] = err == nil
			}
			for _, id := range want {
				if !got[id] {
					t.Errorf("%s is gone", id)
				}
				delete(got, id)
			}
			for id, is := range got {
				if is {
					t.Errorf("%s is there", id)
				}
			}
		}
		time.Sleep(9 * time.Minute)
		there("good", "late", "bad")
		time.Sleep(3 * time.Minute)
		there("late", "bad")
		time.Sleep(10 * time.Minute)
		there("bad")
		time.Sleep(10 * time.Minute)
		there()
	})
}

// Queues are those that somebody defined, takes from or took from; one of them
// also counts its jobs.
func TestQueues(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, l := pauseWorld(t, srv)
		ctx := t.Context()
		stop := start(t, srv, "x", nil).run(engine.WorkerOptions{NoOwner: true, Queues: []string{"old"}})
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		w.run(engine.WorkerOptions{Slots: 2}, lasting(l))
		limitQueue(t, p, "defined", engine.QueueLimits{Concurrency: new(7), Failed: new(spec.Duration(time.Hour))})
		pauseQueue(t, p, "defined")
		submit(t, p.Engine, "job", 5)
		submit(t, p.Engine, "nobodys", 1)
		time.Sleep(45 * time.Second) // the owner has looked at all queues
		usual := spec.Retention{Succeeded: spec.Duration(24 * time.Hour), Failed: spec.Duration(14 * 24 * time.Hour), Cancelled: spec.Duration(14 * 24 * time.Hour)}
		defined := usual
		defined.Failed = spec.Duration(time.Hour)
		want := []engine.QueueInfo{
			{Name: "defined", Paused: true, Concurrency: 7, Retention: defined, Nodes: []string{}},
			{Name: "job", Retention: usual, Waiting: 3, Taken: 2, Workers: 1, Slots: 2, Nodes: []string{"w"}},
			{Name: "nobodys", Retention: usual, Waiting: 1, Nodes: []string{}},
			{Name: "old", Retention: usual, Nodes: []string{}},
		}
		got, err := p.Queues(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		want[1].ByState = map[string]int{"pending": 3, "running": 2}
		one, err := p.Queue(ctx, "job")
		if d := cmp.Diff(want[1], one); err != nil || d != "" {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
		one, err = p.Queue(ctx, "nobodys")
		if err != nil || one.ByState["pending"] != 1 {
			t.Errorf("a queue without workers: %+v, %v", one, err)
		}
		_, err = p.Queue(ctx, "none")
		if refused(t, err, "engine: look at queue none: there is no queue"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("a queue that is not there: %v", err)
		}
		_, err = p.Node(ctx, "none")
		if refused(t, err, "engine: get node none: it is not there"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("a node that is not there: %v", err)
		}
		if err := p.DeleteQueue(ctx, "job"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("a definition that is not there: %v", err)
		}
	})
}

// A definition is applied like any other, and a dry run only tells.
func TestApplyQueue(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	doc := spec.Queue{Name: "a", Concurrency: 2}
	for _, step := range []struct {
		dry  bool
		want string
	}{{true, engine.Created}, {false, engine.Created}, {false, engine.Unchanged}} {
		got, err := eng.Apply(t.Context(), doc, engine.ApplyOptions{DryRun: step.dry})
		if err != nil || got.Action != step.want || got.Key != "queue.a" {
			t.Errorf("got %+v, %v, want %s", got, err, step.want)
		}
	}
	if _, err := eng.Apply(t.Context(), spec.Queue{Name: "a.b"}); err == nil {
		t.Error("a queue that cannot be is taken")
	}
}

// To purge a queue is to cancel what has not started, and nothing else.
func TestPurgeQueue(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, w, l := pauseWorld(t, srv)
		w.run(engine.WorkerOptions{Slots: 2}, lasting(l), engine.NewJob("bad", returns(nil, errors.New("boom"))))
		submit(t, p.Engine, "job", 6)
		submit(t, p.Engine, "other", 1)
		for id, opts := range map[string]engine.SubmitOptions{"bad": {}, "later": {Delay: time.Hour}} {
			opts.ID, opts.Queue = id, "purged"
			if _, err := p.Submit(t.Context(), "bad", nil, opts); err != nil {
				t.Fatal(err)
			}
		}
		start(t, srv, "w2", nil).run(engine.WorkerOptions{Queues: []string{"purged"}}, engine.NewJob("bad", returns(nil, errors.New("boom"))))
		time.Sleep(5 * time.Second)
		if info, err := p.Get(t.Context(), "purged.bad"); err != nil || info.State != "retrying" {
			t.Fatalf("%+v, %v", info, err)
		}
		for queue, want := range map[string]int{"job": 4, "purged": 2, "nobodys": 0} {
			if n, err := p.PurgeQueue(t.Context(), queue); err != nil || n != want {
				t.Errorf("purged %d of queue %s, %v, want %d", n, queue, err, want)
			}
		}
		time.Sleep(2 * time.Minute)
		got := map[string]int{}
		for _, queue := range []string{"job", "purged", "other"} {
			q, err := p.Queue(t.Context(), queue)
			if err != nil {
				t.Fatal(err)
			}
			for state, n := range q.ByState {
				got[queue+" "+state] = n
			}
		}
		want := map[string]int{"job succeeded": 2, "job cancelled": 4, "purged cancelled": 2, "other pending": 1}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if _, err := p.PurgeQueue(t.Context(), "a.b"); err == nil {
			t.Error("a queue that cannot be is purged")
		}
	})
}
