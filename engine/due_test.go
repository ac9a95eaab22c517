package engine_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// times notes when handlers began, since a test began.
type times struct {
	began time.Time
	mu    sync.Mutex
	list  []time.Duration
}

func newTimes() *times { return &times{began: time.Now()} }

func (s *times) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, time.Since(s.began))
}

// rounded returns the times to a precision.
func (s *times) rounded(to time.Duration) (list []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.list {
		list = append(list, t.Round(to))
	}
	return list
}

// A failed attempt is followed by another when the policy says, whichever node
// is there by then: that of the submit, before that of the definition, unless
// the handler knows better.
func TestRetry(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		definition engine.Retry
		submit     *engine.Retry
		err        func(attempt int) error
		want       []time.Duration // when the four attempts began, in seconds
	}{
		"default":     {definition: engine.Retry{Jitter: -1}, want: []time.Duration{0, 1, 3, 7}},
		"fixed":       {definition: engine.Retry{Delay: 10 * time.Minute, Factor: 1, Jitter: -1}, want: []time.Duration{0, 600, 1200, 1800}},
		"exponential": {definition: engine.Retry{Delay: time.Minute, Factor: 10, MaxDelay: 15 * time.Minute, Jitter: -1}, want: []time.Duration{0, 60, 660, 1560}},
		"list":        {definition: engine.Retry{Delays: []time.Duration{time.Second, 10 * time.Minute}, Jitter: -1}, want: []time.Duration{0, 1, 601, 1201}},
		"submit": {
			definition: engine.Retry{Delay: time.Hour},
			submit:     &engine.Retry{Delay: 2 * time.Second, Factor: 1, Jitter: -1},
			want:       []time.Duration{0, 2, 4, 6},
		},
		"max age": {definition: engine.Retry{Delay: 10 * time.Minute, Factor: 1, Jitter: -1, MaxAge: 21 * time.Minute}, want: []time.Duration{0, 600, 1200}},
		"retry after": {
			definition: engine.Retry{Delay: time.Hour},
			err:        func(attempt int) error { return engine.RetryAfter(time.Duration(attempt)*time.Minute, boom) },
			want:       []time.Duration{0, 60, 180, 360},
		},
	} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				seen := newTimes()
				job := engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
					seen.note()
					if c.err != nil {
						return nil, c.err(engine.JobFrom(ctx).Attempt)
					}
					return nil, boom
				}, engine.JobOptions{MaxAttempts: 4, Retry: c.definition})
				a, b := start(t, srv, "a", nil), start(t, srv, "b", nil)
				a.run(engine.WorkerOptions{}, job)
				b.run(engine.WorkerOptions{}, job)
				if _, err := job.Submit(t.Context(), a.Engine, nil, engine.SubmitOptions{ID: "1", Retry: c.submit}); err != nil {
					t.Fatal(err)
				}
				ended(t, a.Engine, "job.1", "failed", len(c.want), len(c.want))
				want := slices.Clone(c.want)
				for i := range want {
					want[i] *= time.Second
				}
				if got := seen.rounded(time.Second); !slices.Equal(got, want) {
					t.Errorf("attempts began after %v, want %v", got, want)
				}
			})
		})
	}
}

// A job waits in state retrying, with its due time, and holds no slot and no
// item meanwhile.
func TestRetrying(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		job := engine.NewJob("job", func(ctx context.Context, fail int) (any, error) {
			if fail == 1 && engine.JobFrom(ctx).Attempt == 1 {
				return nil, errors.New("boom")
			}
			return nil, nil
		}, engine.JobOptions{Retry: engine.Retry{Delay: time.Hour, Jitter: -1}})
		p.run(engine.WorkerOptions{Slots: 1}, job)
		h, err := job.Submit(t.Context(), p.Engine, 1)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		info, err := h.Get(t.Context())
		if err != nil || info.State != "retrying" || info.Wait == nil || *info.Wait != "retry" ||
			info.Due == nil || info.Due.Sub(*info.Attempts[0].Ended).Round(time.Second) != time.Hour || info.Error == nil {
			t.Errorf("got %+v, %v", info, err)
		}
		if n := items(t, p.nc); n != 0 {
			t.Errorf("there are %d items", n)
		}
		other, err := job.Submit(t.Context(), p.Engine, 0)
		if err != nil {
			t.Fatal(err)
		}
		ended(t, p.Engine, other.ID, "succeeded", 1, 0)
		ended(t, p.Engine, h.ID, "succeeded", 2, 1)
	})
}

// A delayed job starts when it is due, to the millisecond and not before; one
// whose time has passed starts at once.
func TestDelay(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		seen := newTimes()
		job := engine.NewJob("job", func(context.Context, any) (any, error) { seen.note(); return nil, nil })
		p.run(engine.WorkerOptions{}, job)
		time.Sleep(time.Minute)
		for id, opts := range map[string]engine.SubmitOptions{
			"delay": {Delay: 1234 * time.Millisecond},
			"at":    {At: seen.began.Add(30*time.Minute + 1500*time.Microsecond)},
			"past":  {At: seen.began},
		} {
			opts.ID = id
			if _, err := job.Submit(t.Context(), p.Engine, nil, opts); err != nil {
				t.Fatal(err)
			}
			info, err := p.Get(t.Context(), "job."+id)
			if scheduled := id != "past"; err != nil || (info.State == "scheduled") != scheduled || (info.Due != nil) != scheduled || (info.Wait != nil) != scheduled {
				t.Errorf("%s: %+v, %v", id, info, err)
			}
		}
		if _, err := job.Submit(t.Context(), p.Engine, nil, engine.SubmitOptions{ID: "never", Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if info, err := p.Cancel(t.Context(), "job.never"); err != nil || info.Due != nil || info.Wait != nil {
			t.Errorf("a cancelled job is still due: %+v, %v", info, err)
		}
		for _, id := range []string{"past", "delay", "at"} {
			ended(t, p.Engine, "job."+id, "succeeded", 1, 0)
		}
		want := []time.Duration{time.Minute, time.Minute + 1234*time.Millisecond, 30*time.Minute + 2*time.Millisecond}
		if got := seen.rounded(time.Microsecond); !slices.Equal(got, want) {
			t.Errorf("handlers began at %v, want %v", got, want)
		}
	})
}

// SubmitMany keeps the delays of each of its jobs.
func TestDelayMany(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		seen := newTimes()
		job := engine.NewJob("job", func(context.Context, int) (any, error) { seen.note(); return nil, nil })
		p.run(engine.WorkerOptions{}, job)
		handles, err := job.SubmitMany(t.Context(), p.Engine, func(yield func(engine.Submission[int]) bool) {
			for i := range 100 {
				if !yield(engine.Submission[int]{Input: i, Options: engine.SubmitOptions{Delay: time.Duration(i) * time.Second}}) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range handles {
			ended(t, p.Engine, h.ID, "succeeded", 1, 0)
		}
		for i, at := range seen.rounded(time.Millisecond) {
			if want := time.Duration(i) * time.Second; at != want {
				t.Errorf("handler %d began at %v, want %v", i, at, want)
			}
		}
	})
}

// A job that nobody starts in time fails, and so does one that has not ended by
// its deadline, whatever it does.
func TestTimeLimits(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		owner, p := start(t, srv, "owner", nil), start(t, srv, "a", nil)
		serve(t, owner.Engine)
		submit := func(kind, id string, opts engine.SubmitOptions) {
			t.Helper()
			opts.ID = id
			if _, err := p.Submit(t.Context(), kind, nil, opts); err != nil {
				t.Fatal(err)
			}
		}
		failed := func(id, code string, attempts int, at time.Duration) {
			t.Helper()
			info := ended(t, p.Engine, id, "failed", attempts, 0)
			if info.Error == nil || info.Error.Code != code || info.Finished.Sub(*info.Created).Round(time.Second) != at {
				t.Errorf("%s failed with %+v after %v", id, info.Error, info.Finished.Sub(*info.Created))
			}
		}
		submit("none.k", "queued", engine.SubmitOptions{QueueTimeout: time.Minute})
		submit("none.k", "delayed", engine.SubmitOptions{Delay: time.Minute, QueueTimeout: time.Minute})
		submit("none.k", "late", engine.SubmitOptions{Deadline: time.Minute})
		failed("none.queued", "queue_timeout", 0, time.Minute)
		failed("none.late", "deadline", 0, time.Minute)
		failed("none.delayed", "queue_timeout", 0, 2*time.Minute)
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}

		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(2 * time.Minute):
				return nil, nil
			}
		}))
		submit("job", "runs", engine.SubmitOptions{Deadline: time.Minute, QueueTimeout: time.Second})
		submit("job", "quick", engine.SubmitOptions{Deadline: time.Hour})
		failed("job.runs", "deadline", 1, time.Minute)
		ended(t, p.Engine, "job.quick", "succeeded", 1, 0)
		time.Sleep(time.Second) // timers go after the record says how it ended
		if n := streamInfo(t, p.nc, "mr_default_timers").State.Msgs; n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

// A definition has limits for its jobs, those that events start included. A submit
// may say otherwise.
func TestLimitsOfDefinition(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		serve(t, p.Engine)
		job := engine.NewJob[string, any]("job", nil, engine.JobOptions{QueueTimeout: time.Minute, Deadline: time.Hour})
		for id, opts := range map[string]engine.SubmitOptions{"as-defined": {}, "otherwise": {QueueTimeout: 2 * time.Minute}} {
			opts.ID = id
			if _, err := job.Submit(t.Context(), p.Engine, "", opts); err != nil {
				t.Fatal(err)
			}
		}
		other := engine.NewJob[any, any]("other", returns(nil, nil))
		by := engine.On("by", engine.Subject("orders.created"), job, nil, engine.TriggerOptions[string]{ID: func(engine.Message, string) string { return "event" }})
		p.run(engine.WorkerOptions{}, other, by)
		time.Sleep(time.Second)
		publish(t, p.nc, "orders.created", `"x"`)
		time.Sleep(time.Second)
		for id, want := range map[string]time.Duration{"job.as-defined": time.Minute, "job.otherwise": 2 * time.Minute, "job.event": time.Minute} {
			info := ended(t, p.Engine, id, "failed", 0, 0)
			if info.Error.Code != "queue_timeout" || info.StartBy.Sub(*info.Created).Round(time.Second) != want || info.Deadline.Sub(*info.Created).Round(time.Second) != time.Hour {
				t.Errorf("%s: %+v, start by %v, deadline %v", id, info.Error, info.StartBy, info.Deadline)
			}
		}
		_, err := engine.NewJob[any, any]("job", nil, engine.JobOptions{Deadline: -time.Second}).Submit(t.Context(), p.Engine, nil)
		refused(t, err, "deadline is -1s")
	})
}

// A worker without a handler for a kind puts the job off, and counts no attempt;
// whoever has one runs it.
func TestMissingKindIsPutOff(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{Queues: []string{"job"}}, engine.NewJob("other", returns(nil, nil)))
		submit(t, p.Engine, "job", 1)
		time.Sleep(5 * time.Minute)
		info, err := p.Get(t.Context(), "job.1")
		if err != nil || info.State != "scheduled" || info.Wait == nil || *info.Wait != "kind" || info.Attempt != 0 || info.Revision > 15 {
			t.Errorf("got %+v, %v", info, err)
		}
		b := start(t, srv, "b", nil)
		b.run(engine.WorkerOptions{Slots: 50}, engine.NewJob("job", returns(nil, nil)))
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
	})
}

// A job that has ended can be deleted, and its ID is free then.
func TestDelete(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", returns(nil, nil)))
		if _, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "1", Delay: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if err := p.Delete(t.Context(), "job.1"); !errors.Is(err, engine.ErrNotEnded) {
			t.Errorf("got %v", err)
		}
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		if err := p.Delete(t.Context(), "job.1"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Get(t.Context(), "job.1"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		h, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "1"})
		if err != nil || !h.Created {
			t.Fatalf("got %+v, %v", h, err)
		}
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
	})
}

// What makes no sense as times is refused in one line.
func TestTimesRefused(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	for want, opts := range map[string]engine.SubmitOptions{
		"is negative":      {Delay: -1},
		"both a delay":     {Delay: 1, At: time.Now()},
		"out of range":     {At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)},
		"factor is 0.5":    {Retry: &engine.Retry{Factor: 0.5}},
		"jitter is 2":      {Retry: &engine.Retry{Jitter: 2}},
		"a duration is -1": {Retry: &engine.Retry{Delays: []time.Duration{-1}}},
	} {
		_, err := eng.Submit(t.Context(), "job", nil, opts)
		refused(t, err, want)
	}
}
