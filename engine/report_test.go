package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// Progress is stored at most once a second, the latest wins, and the last words
// come with the outcome.
func TestProgress(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil, jobWrites)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			j := engine.JobFrom(ctx)
			for i := range int64(1000) {
				j.Progress(i+1, 1000, "copying")
				time.Sleep(10 * time.Millisecond)
			}
			j.Progress(1000, 1000, strings.Repeat("é", 200))
			return nil, nil
		}))
		submit(t, p.Engine, "job", 1)
		time.Sleep(5500 * time.Millisecond)
		info := get(t, p.Engine, "job.1")
		if at := info.Progress; at == nil || at.Total != 1000 || at.Note != "copying" || at.Done < 400 || at.Done > 600 || at.At == nil {
			t.Errorf("after 5.5 seconds of 10 the progress is %+v", at)
		}
		info = ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		if at := info.Progress; at == nil || at.Done != 1000 || !strings.HasPrefix(at.Note, "éé") || len(at.Note) > 204 {
			t.Errorf("in the end the progress is %+v", at)
		}
		reports := -1 // without the claim
		for _, w := range p.link.Writes() {
			if w.Header.Get("Mr-State") == "running" {
				reports++
			}
		}
		if reports < 9 || reports > 11 {
			t.Errorf("10 seconds of progress took %d writes", reports)
		}
	})
}

// An attempt without a sign of life is ended, which is a failure, and what it left
// is there for the next one.
func TestHeartbeat(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		var hung time.Duration
		var cause error
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			j := engine.JobFrom(ctx)
			var page int
			found, err := j.Details(&page)
			if found || err != nil {
				return strings.Repeat("x", page), err
			}
			for i := range 5 {
				if err := j.Heartbeat(i + 1); err != nil {
					return "", err
				}
				time.Sleep(4 * time.Second)
				j.Progress(int64(i), 5, "")
				time.Sleep(4 * time.Second)
				_ = j.Heartbeat(nil) // keeps the details
			}
			began := time.Now()
			<-ctx.Done()
			hung, cause = time.Since(began), context.Cause(ctx)
			return "", ctx.Err()
		}, engine.JobOptions{Heartbeat: 5 * time.Second}))
		submit(t, p.Engine, "job", 1)
		info := ended(t, p.Engine, "job.1", "succeeded", 2, 1)
		if string(info.Result) != `"xxxxx"` || info.Details != nil {
			t.Errorf("the result is %s and the details are %s, want five x and none", info.Result, info.Details)
		}
		if hung != 5*time.Second || !errors.Is(cause, engine.ErrHeartbeat) {
			t.Errorf("the attempt hung for %v and was ended by %v", hung, cause)
		}
		if err := info.Attempts[0].Error; err == nil || err.Code != "heartbeat" {
			t.Errorf("the first attempt ended with %+v", err)
		}
	})
}

// What an attempt left is there for the next one also if its node has died.
func TestDetailsOfTheDead(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		reported := make(chan struct{})
		job := func(lives bool) *engine.Job[any, string] {
			return engine.NewJob("job", func(ctx context.Context, _ any) (left string, err error) {
				j := engine.JobFrom(ctx)
				if lives {
					_, err := j.Details(&left)
					return left, err
				}
				_ = j.Heartbeat("page 7")
				close(reported)
				<-ctx.Done()
				return "", context.Cause(ctx)
			})
		}
		a := start(t, srv, "a", nil)
		a.run(engine.WorkerOptions{Grace: time.Second, NoOwner: true}, job(false))
		submit(t, a.Engine, "job", 1)
		<-reported
		time.Sleep(100 * time.Millisecond)
		b := start(t, srv, "b", nil)
		if info := get(t, b.Engine, "job.1"); string(info.Details) != `"page 7"` {
			t.Errorf("the record has the details %s", info.Details)
		}
		a.link.Down()
		b.run(engine.WorkerOptions{}, job(true))
		info := ended(t, b.Engine, "job.1", "succeeded", 2, 1)
		if string(info.Result) != `"page 7"` {
			t.Errorf("the next attempt found %s", info.Result)
		}
	})
}

// What an attempt that was overtaken reports changes nothing, and what one that
// is cancelled reports does not keep it from ending.
func TestReportTooLate(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		var handlers sync.WaitGroup
		job := func(note string, until <-chan struct{}) *engine.Job[any, any] {
			return engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
				handlers.Add(1)
				defer handlers.Done()
				tick := time.NewTicker(300 * time.Millisecond)
				defer tick.Stop()
				for i := int64(0); ; i++ {
					engine.JobFrom(ctx).Progress(i, 0, note)
					select {
					case <-tick.C:
					case <-until:
						return nil, context.Cause(ctx)
					}
				}
			})
		}
		a, b := start(t, srv, "a", nil), start(t, srv, "b", nil)
		enough, cancelled := make(chan struct{}), make(chan struct{})
		a.run(engine.WorkerOptions{NoOwner: true}, job("old", enough))
		submit(t, a.Engine, "job", 1)
		time.Sleep(5 * time.Second)
		if info := get(t, b.Engine, "job.1"); info.Progress == nil || info.Progress.Note != "old" {
			t.Errorf("the progress is %+v", info.Progress)
		}
		a.link.Freeze()
		b.run(engine.WorkerOptions{}, job("new", cancelled))
		time.Sleep(time.Minute)
		a.link.Thaw()
		for range 20 {
			time.Sleep(500 * time.Millisecond)
			if info := get(t, b.Engine, "job.1"); info.Attempt != 2 || info.Progress == nil || info.Progress.Note != "new" {
				t.Fatalf("attempt %d is at %+v", info.Attempt, info.Progress)
			}
		}
		close(enough)
		if _, err := b.Cancel(t.Context(), "job.1"); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		close(cancelled)
		ended(t, b.Engine, "job.1", "cancelled", 2, 1)
		handlers.Wait()
	})
}

// While NATS is away a handler that reports does not wait, and on its return the
// latest report is stored.
func TestReportAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		took, done := make(chan time.Duration, 1), make(chan struct{})
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			j := engine.JobFrom(ctx)
			j.Progress(0, 9, "")
			time.Sleep(2 * time.Second)
			p.link.Down()
			time.AfterFunc(3*time.Second, p.link.Up)
			began := time.Now()
			for i := range int64(9) {
				j.Progress(i+1, 9, "")
				_ = j.Heartbeat(i + 1)
			}
			took <- time.Since(began)
			<-done
			return nil, nil
		}))
		submit(t, p.Engine, "job", 1)
		time.Sleep(10 * time.Second)
		info := get(t, p.Engine, "job.1")
		if info.Progress == nil || info.Progress.Done != 9 || string(info.Details) != "9" {
			t.Errorf("after the outage the progress is %+v and the details are %s", info.Progress, info.Details)
		}
		if d := <-took; d > 0 {
			t.Errorf("reports took %v", d)
		}
		close(done)
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
	})
}

// Details that cannot travel are refused where they are left, and those that do not
// fit where they are read.
func TestDetailsRefused(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		var errs []string
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			j := engine.JobFrom(ctx)
			note := func(err error) {
				if err == nil {
					err = errors.New("no error")
				}
				errs = append(errs, err.Error())
			}
			if j.Attempt > 1 {
				_, err := j.Details(new(int))
				note(err)
				return nil, nil
			}
			note(j.Heartbeat(func() {}))
			note(j.Heartbeat(strings.Repeat("x", engine.MaxDetails)))
			note(j.Heartbeat("fine"))
			return nil, errors.New("boom")
		}))
		submit(t, p.Engine, "job", 1)
		ended(t, p.Engine, "job.1", "succeeded", 2, 1)
		want := []string{"do not become JSON", "put them elsewhere", "no error", "do not fit *int"}
		for i, err := range errs {
			if i >= len(want) || !strings.Contains(err, want[i]) || strings.Contains(err, "\n") {
				t.Errorf("error %d is %q", i+1, err)
			}
		}
		if len(errs) != len(want) {
			t.Errorf("got %d errors, want %d", len(errs), len(want))
		}
	})
}

// Outside a handler, and after it, nothing is reported and nothing fails.
func TestReportOutside(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		var late engine.Current
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			late = engine.JobFrom(ctx)
			late.Progress(1, 2, "in time")
			return nil, nil
		}, engine.JobOptions{Heartbeat: time.Second}))
		submit(t, p.Engine, "job", 1)
		before := ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		for _, c := range []engine.Current{late, {}} {
			c.Progress(2, 2, "too late")
			c.Say("too late")
			c.Logger().Info("too late")
			if err := c.Heartbeat("too late"); err != nil {
				t.Error(err)
			}
			if found, err := c.Details(new(string)); found || err != nil {
				t.Errorf("there are details: %v", err)
			}
		}
		time.Sleep(time.Minute)
		if now := get(t, p.Engine, "job.1"); now.Revision != before.Revision || now.Progress.Note != "in time" {
			t.Errorf("the job went on: %+v", now.Progress)
		}
		if lines := readLog(t, p.Engine, "job.1", engine.LogOptions{}); len(lines) > 0 {
			t.Errorf("the log has %q", lines)
		}
	})
}

// A definition with a heartbeat that cannot be is refused.
func TestHeartbeatOption(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	_, err := eng.Worker(engine.WorkerOptions{}, engine.NewJob("job", returns(nil, nil), engine.JobOptions{Heartbeat: -1}))
	if err == nil || !strings.Contains(err.Error(), "heartbeat is -1ns") {
		t.Errorf("got %v, want a complaint about the heartbeat", err)
	}
}

// get reads a job.
func get(t testing.TB, eng *engine.Engine, id string) engine.JobInfo {
	t.Helper()
	info, err := eng.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
