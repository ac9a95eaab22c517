package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// How a handler ends decides what becomes of its job.
func TestOutcomes(t *testing.T) {
	boom := errors.New("boom")
	many := slices.Repeat([]string{"failed"}, 5)
	cases := map[string]struct {
		handle  func(context.Context, any) (any, error)
		opts    engine.JobOptions
		state   string
		ends    []string // of its attempts
		message string
		code    string
	}{
		"result":   {handle: returns("hello", nil), state: "succeeded", ends: []string{"succeeded"}},
		"nothing":  {handle: returns(nil, nil), state: "succeeded", ends: []string{"succeeded"}},
		"error":    {handle: returns(nil, boom), state: "failed", ends: many, message: "boom"},
		"fewer":    {handle: returns(nil, boom), opts: engine.JobOptions{MaxAttempts: 2}, state: "failed", ends: many[:2], message: "boom"},
		"fail":     {handle: returns(nil, engine.Fail(boom)), state: "failed", ends: many[:1], message: "boom", code: "fail"},
		"failnil":  {handle: returns(nil, engine.Fail(nil)), state: "failed", ends: many[:1], message: "gave no error", code: "fail"},
		"retrynil": {handle: returns(nil, engine.RetryAfter(0, nil)), state: "failed", ends: many, message: "gave no error"},
		"wrapped":  {handle: returns(nil, fmt.Errorf("no: %w", engine.Fail(boom))), state: "failed", ends: many[:1], message: "no: boom", code: "fail"},
		"panic":    {handle: func(context.Context, any) (any, error) { panic("oh no") }, state: "failed", ends: many, message: "panic: oh no", code: "panic"},
		"exit":     {handle: func(context.Context, any) (any, error) { runtime.Goexit(); return nil, nil }, state: "failed", ends: many, message: "Goexit", code: "panic"},
		"nilerror": {handle: returns(nil, (*net.OpError)(nil)), state: "failed", ends: many, message: "panic: runtime error", code: "panic"},
		"timeout":  {handle: waits, opts: engine.JobOptions{Timeout: time.Second, MaxAttempts: 1}, state: "failed", ends: many[:1], message: "took too long: context deadline exceeded", code: "timeout"},
		"late":     {handle: sleeps, opts: engine.JobOptions{Timeout: time.Second}, state: "succeeded", ends: []string{"succeeded"}},
		"snooze":   {handle: snoozes, state: "succeeded", ends: []string{"returned", "returned", "succeeded"}},
		"large":    {handle: returns(strings.Repeat("x", engine.MaxValue), nil), state: "failed", ends: many[:1], message: "the result has 67108866 bytes", code: "fail"},
		"escaped":  {handle: returns(strings.Repeat("<", 40_000), nil), state: "succeeded", ends: []string{"succeeded"}},
		"longest":  {handle: returns(nil, errors.New(strings.Repeat("é", 100_000))), state: "failed", ends: many, message: "éé"},
		"notjson":  {handle: returns(func() {}, nil), state: "failed", ends: many[:1], message: "does not become JSON", code: "fail"},
		"deep":     {handle: returns(json.RawMessage(strings.Repeat("[", 9500)+strings.Repeat("]", 9500)), nil), state: "failed", ends: many[:1], message: "nested 9500 deep", code: "fail"},
		"endless":  {handle: returns(nil, fmt.Errorf("no: %w", circular{})), state: "failed", ends: many, message: "no: it wraps itself"},
		"goneexit": {handle: returns(nil, context.Canceled), state: "failed", ends: many, message: "context canceled"},
	}
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		var defs []engine.Definition
		for kind, c := range cases {
			submit(t, p.Engine, kind, 1)
			defs = append(defs, engine.NewJob(kind, c.handle, c.opts))
		}
		p.run(engine.WorkerOptions{Slots: len(cases)}, defs...)
		for kind, c := range cases {
			info, err := p.Wait(t.Context(), kind+".1")
			if err != nil {
				t.Fatal(err)
			}
			if got := outcomes(info); info.State != c.state || !slices.Equal(got, c.ends) {
				t.Errorf("%s: the job %s after %v, want %s after %v", kind, info.State, got, c.state, c.ends)
			}
			switch {
			case c.message == "" && info.Error != nil:
				t.Errorf("%s: the error is %+v, want none", kind, info.Error)
			case c.message != "" && (info.Error == nil || !strings.Contains(info.Error.Message, c.message) || info.Error.Code != c.code):
				t.Errorf("%s: the error is %+v, want code %q with %s", kind, info.Error, c.code, c.message)
			case kind == "panic" && !strings.Contains(info.Error.Stack, "TestOutcomes"):
				t.Errorf("the stack does not show the handler:\n%s", info.Error.Stack)
			}
		}
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// circular is an error in whose chain [errors.Is] looks for ever.
type circular struct{}

func (circular) Error() string   { return "it wraps itself" }
func (c circular) Unwrap() error { return c }

func returns(v any, err error) func(context.Context, any) (any, error) {
	return func(context.Context, any) (any, error) { return v, err }
}

func waits(ctx context.Context, _ any) (any, error) {
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), engine.ErrTimeout) {
		return nil, engine.Fail(context.Cause(ctx))
	}
	return nil, ctx.Err()
}

func sleeps(context.Context, any) (any, error) {
	time.Sleep(time.Minute)
	return "it took its time", nil
}

func snoozes(ctx context.Context, _ any) (any, error) {
	if engine.JobFrom(ctx).Attempt < 3 {
		return nil, engine.Snooze(time.Minute)
	}
	return nil, nil
}

// A job that snoozes leaves its slot to others, and comes back when it said.
func TestSnooze(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{Slots: 1}, engine.NewJob("job", func(ctx context.Context, nap time.Duration) (any, error) {
			if nap > 0 && engine.JobFrom(ctx).Attempt == 1 {
				return nil, engine.Snooze(nap)
			}
			return nil, nil
		}))
		began := time.Now()
		for id, nap := range map[string]string{"long": `60000000000`, "short": `20000000000`, "none": `0`} {
			if _, err := p.Submit(t.Context(), "job", []byte(nap), engine.SubmitOptions{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		for id, want := range map[string]time.Duration{"none": 0, "short": 20 * time.Second, "long": time.Minute} {
			info, err := p.Wait(t.Context(), "job."+id)
			if err != nil || info.State != "succeeded" || info.Failures != 0 {
				t.Errorf("%s: %+v, %v", id, info, err)
			}
			if after := info.Finished.Sub(began).Round(time.Second); after != want {
				t.Errorf("%s ended after %v, want %v", id, after, want)
			}
		}
	})
}

// A handler sees what it runs, and its fence grows from attempt to attempt.
func TestJobFrom(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		var seen []engine.Current
		p.run(engine.WorkerOptions{}, engine.NewJob("a.job", func(ctx context.Context, _ any) (any, error) {
			seen = append(seen, engine.JobFrom(ctx))
			return nil, errors.New("boom")
		}, engine.JobOptions{Queue: "other"}))
		if _, err := p.Submit(t.Context(), "a.job", nil, engine.SubmitOptions{ID: "1", Queue: "other", MaxAttempts: 3}); err != nil {
			t.Fatal(err)
		}
		info := ended(t, p.Engine, "other.1", "failed", 3, 3)
		synctest.Wait()
		for i, c := range seen {
			if c.ID != "other.1" || c.Kind != "a.job" || c.Attempt != i+1 || c.Node != "a" || c.Namespace != "default" {
				t.Errorf("attempt %d saw %+v", i+1, c)
			}
			if i > 0 && c.Fence <= seen[i-1].Fence {
				t.Errorf("the fence went from %d to %d", seen[i-1].Fence, c.Fence)
			}
		}
		if len(seen) != 3 || info.Fence != seen[2].Fence {
			t.Errorf("%d attempts, the last fence is %d", len(seen), info.Fence)
		}
		if zero := engine.JobFrom(t.Context()); zero.ID != "" || zero.Logger() == nil {
			t.Errorf("outside a handler there is %+v", zero)
		}
	})
}

// An input that does not fit its handler ends the job at once.
func TestInputDoesNotFit(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(context.Context, int) (any, error) { return nil, nil }))
		if _, err := p.Submit(t.Context(), "job", []byte(`"five"`), engine.SubmitOptions{ID: "1"}); err != nil {
			t.Fatal(err)
		}
		info := ended(t, p.Engine, "job.1", "failed", 1, 1)
		if !strings.Contains(info.Error.Message, "input does not fit int") {
			t.Errorf("the error is %+v", info.Error)
		}
	})
}

// Of many attempts a record keeps the first two and the last eight.
func TestManyAttempts(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", returns(nil, errors.New("boom")), engine.JobOptions{
			MaxAttempts: 20, Retry: engine.Retry{Delay: time.Second, Factor: 1},
		}))
		submit(t, p.Engine, "job", 1)
		info := ended(t, p.Engine, "job.1", "failed", 20, 20)
		var numbers []int
		for _, a := range info.Attempts {
			numbers = append(numbers, a.Number)
		}
		if want := []int{1, 2, 13, 14, 15, 16, 17, 18, 19, 20}; !slices.Equal(numbers, want) {
			t.Errorf("the record tells of %v, want %v", numbers, want)
		}
	})
}

// A job of a kind that its worker does not have waits for one that has it.
func TestMissingKind(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
		a.run(engine.WorkerOptions{}, napping("job.old", l))
		submit(t, a.Engine, "job.new", 3)
		time.Sleep(10 * time.Second)
		b.run(engine.WorkerOptions{}, napping("job.new", l))
		for i := range 3 {
			ended(t, a.Engine, fmt.Sprintf("job.%d", i+1), "succeeded", 1, 0)
		}
		if n := items(t, a.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// What is not an item of ours is left in the queue, and holds nobody up.
func TestNoItem(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		p.run(engine.WorkerOptions{Slots: 1}, napping("job", l))
		for range 5 {
			publish(t, p.nc, "mr.default.work.job.normal.x", "hello")
		}
		submit(t, p.Engine, "job", 5)
		for i := range 5 {
			ended(t, p.Engine, fmt.Sprintf("job.%d", i+1), "succeeded", 1, 0)
		}
		if n := items(t, p.nc); n != 5 {
			t.Errorf("%d messages are left, want 5", n)
		}
	})
}

// A long attempt is never delivered to anybody else, nor again to its own
// worker, also if it began with a claim that had to be sent twice.
func TestKeptAlive(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.Pass, natstest.LoseAnswer, natstest.CutBefore} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				a := start(t, srv, "a", nil)
				b := start(t, srv, "b", onFirst("$KV.mr_default_jobs.job.1", fault))
				submit(t, a.Engine, "job", 1)
				long := engine.NewJob("job", sleeps)
				b.run(engine.WorkerOptions{}, long)
				time.Sleep(10 * time.Second)
				a.run(engine.WorkerOptions{}, long)
				ended(t, a.Engine, "job.1", "succeeded", 1, 0)
				if n := delivered(t, a.nc, "job"); n != 1 {
					t.Errorf("the item was delivered %d times, want once", n)
				}
			})
		})
	}
}

// An item that comes back to the worker that runs its job is kept alive from
// then on.
func TestAdopted(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		began := time.Now()
		p := start(t, srv, "a", func(natstest.Write) natstest.Fault {
			if time.Since(began) < 8*time.Second {
				return natstest.Hold
			}
			return natstest.Pass
		}, "$JS.ACK.>")
		p.run(engine.WorkerOptions{}, engine.NewJob("job", sleeps))
		submit(t, p.Engine, "job", 1)
		ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
		if n := delivered(t, p.nc, "job"); n != 2 {
			t.Errorf("the item was delivered %d times, want twice", n)
		}
	})
}

// delivered returns how often items of a queue were delivered, after a second, in
// which one that was not acknowledged would have come again.
func delivered(t testing.TB, nc *nats.Conn, queue string) uint64 {
	t.Helper()
	time.Sleep(time.Second)
	consumer, err := jetStream(t, nc).Consumer(t.Context(), "mr_default_work", queue)
	if err != nil {
		t.Fatal(err)
	}
	return consumer.CachedInfo().Delivered.Consumer
}
