package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// steps is what middleware saw, in order.
type steps struct {
	mu   sync.Mutex
	list []string
}

func (s *steps) add(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, step)
}

// named returns a middleware that notes what passes it.
func (s *steps) named(name string) engine.Middleware {
	return func(next engine.Handler) engine.Handler {
		return func(ctx context.Context, input json.RawMessage) (json.RawMessage, error) {
			s.add(fmt.Sprintf("%s %s %s", name, engine.JobFrom(ctx).Kind, input))
			result, err := next(ctx, input)
			crash := (*engine.PanicError)(nil)
			switch {
			case errors.As(err, &crash):
				s.add(fmt.Sprintf("%s caught %v", name, crash.Value))
			case err != nil:
				s.add(fmt.Sprintf("%s failed %v", name, err))
			default:
				s.add(fmt.Sprintf("%s got %s", name, result))
			}
			return result, err
		}
	}
}

// Middleware of the worker is around that of the job, the first outermost, and a
// panic of the handler is an error for all of it.
func TestMiddlewareOrder(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, s := start(t, srv, "a", nil), &steps{}
		inner := engine.JobOptions{MaxAttempts: 1, Middleware: []engine.Middleware{s.named("c"), s.named("d")}}
		p.run(engine.WorkerOptions{Slots: 1, Middleware: []engine.Middleware{s.named("a"), s.named("b")}},
			engine.NewJob("good", func(context.Context, int) (string, error) { return "yes", nil }, inner),
			engine.NewJob("bad", func(context.Context, int) (string, error) { panic("no") }, inner),
			engine.NewJob("plain", func(context.Context, int) (string, error) { return "", errors.New("boom") }, engine.JobOptions{MaxAttempts: 1}),
		)
		for _, c := range []struct {
			kind, state string
			want        []string
		}{
			{"good", "succeeded", []string{"a good 1", "b good 1", "c good 1", "d good 1", `d got "yes"`, `c got "yes"`, `b got "yes"`, `a got "yes"`}},
			{"bad", "failed", []string{"a bad 1", "b bad 1", "c bad 1", "d bad 1", "d caught no", "c caught no", "b caught no", "a caught no"}},
			{"plain", "failed", []string{"a plain 1", "b plain 1", "b failed boom", "a failed boom"}},
		} {
			job, err := p.Submit(t.Context(), c.kind, json.RawMessage("1"))
			if err != nil {
				t.Fatal(err)
			}
			ended(t, p.Engine, job.ID, c.state, 1, map[string]int{"failed": 1}[c.state])
			if !slices.Equal(s.list, c.want) {
				t.Errorf("%s went through %q, want %q", c.kind, s.list, c.want)
			}
			s.list = nil
		}
	})
}

// What middleware returns is what counts, whatever the handler did; its panic is
// a failure.
func TestMiddlewareDecides(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		boom := errors.New("boom")
		around := func(m func(ctx context.Context, next engine.Handler, input json.RawMessage) (json.RawMessage, error)) engine.JobOptions {
			return engine.JobOptions{MaxAttempts: 2, Middleware: []engine.Middleware{func(next engine.Handler) engine.Handler {
				return func(ctx context.Context, input json.RawMessage) (json.RawMessage, error) { return m(ctx, next, input) }
			}}}
		}
		cases := map[string]struct {
			opts     engine.JobOptions
			state    string
			attempts int
			failures int
			result   string
		}{
			"forgives": {around(func(ctx context.Context, next engine.Handler, in json.RawMessage) (json.RawMessage, error) {
				_, _ = next(ctx, in)
				return json.RawMessage(`"forgiven"`), nil
			}), "succeeded", 1, 0, `"forgiven"`},
			"skips": {around(func(context.Context, engine.Handler, json.RawMessage) (json.RawMessage, error) {
				return nil, engine.Fail(boom)
			}), "failed", 1, 1, ""},
			"snoozes": {around(func(ctx context.Context, next engine.Handler, in json.RawMessage) (json.RawMessage, error) {
				if engine.JobFrom(ctx).Attempt == 1 {
					return nil, fmt.Errorf("not now: %w", engine.Snooze(time.Minute))
				}
				_, err := next(ctx, in)
				return nil, engine.Fail(err)
			}), "failed", 2, 1, ""},
			"panics": {around(func(context.Context, engine.Handler, json.RawMessage) (json.RawMessage, error) {
				panic(engine.Fail(boom)) // a panic is one, whatever it is called with
			}), "failed", 2, 2, ""},
			"injects": {around(func(context.Context, engine.Handler, json.RawMessage) (json.RawMessage, error) {
				return json.RawMessage(`1,"state":"running"`), nil // no JSON of its own
			}), "failed", 1, 1, ""},
		}
		var defs []engine.Definition
		for kind, c := range cases {
			defs = append(defs, engine.NewJob(kind, func(context.Context, any) (any, error) { return nil, boom }, c.opts))
		}
		p.run(engine.WorkerOptions{}, defs...)
		for kind, c := range cases {
			submit(t, p.Engine, kind, 1)
			info := ended(t, p.Engine, kind+".1", c.state, c.attempts, c.failures)
			if string(info.Result) != c.result {
				t.Errorf("%s: the result is %s, want %s", kind, info.Result, c.result)
			}
		}
	})
}
