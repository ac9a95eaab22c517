package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// declined is an error with data.
type declined struct{ Card, Reason string }

func (d *declined) Error() string { return "card " + d.Card + " was declined: " + d.Reason }

// coded is an error with a code, which is not registered.
type coded struct{}

func (coded) Error() string { return "the bank is closed" }
func (coded) Code() string  { return "bank.closed" }

var errSoldOut = errors.New("sold out")

func init() {
	engine.RegisterError[*declined]("test.declined")
	engine.RegisterSentinel("test.sold-out", errSoldOut)
}

// What a handler returns reaches whoever waits, in another process: the
// registered errors as themselves, of each attempt too, and through a job that
// waited for the one that failed.
func TestErrorsTravel(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		pay := engine.NewJob("pay", func(ctx context.Context, _ any) (any, error) {
			if engine.JobFrom(ctx).Attempt == 1 {
				return nil, fmt.Errorf("first: %w", engine.RetryAfter(time.Minute, errSoldOut))
			}
			return nil, fmt.Errorf("pay: %w", engine.Fail(fmt.Errorf("bank: %w", errors.Join(coded{}, &declined{"4711", "no money"}))))
		})
		order := engine.NewJob("order", func(ctx context.Context, _ any) (any, error) {
			job, err := pay.Submit(ctx, p.Engine, nil, engine.SubmitOptions{ID: "child"})
			if err != nil {
				return nil, err
			}
			_, err = job.Wait(ctx)
			return nil, fmt.Errorf("order: %w", err)
		}, engine.JobOptions{MaxAttempts: 1})
		p.run(engine.WorkerOptions{}, pay, order)

		q := start(t, srv, "b", nil)
		job, err := order.Submit(t.Context(), q.Engine, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = job.Wait(t.Context())
		var card *declined
		var why *engine.JobError
		if !errors.As(err, &card) || *card != (declined{"4711", "no money"}) || !errors.As(err, &why) || why.Code != "bank.closed" {
			t.Errorf("the order fails with %v (%+v), want the card with code bank.closed", err, why)
		}
		if errors.Is(err, errSoldOut) || !strings.Contains(err.Error(), "job pay.child failed: pay: bank: the bank is closed") {
			t.Errorf("the order says %v", err)
		}
		info, err := q.Get(t.Context(), "pay.child")
		if err != nil || len(info.Attempts) != 2 {
			t.Fatalf("got %+v, %v, want two attempts", info, err)
		}
		first := info.Attempts[0].Error.Err()
		if !errors.Is(first, errSoldOut) || first.Error() != "first: sold out" || info.Attempts[0].Error.Code != "test.sold-out" {
			t.Errorf("the first attempt failed with %v, %+v", first, info.Attempts[0].Error)
		}
		if second := info.Attempts[1].Error.Err(); !errors.As(second, &card) || errors.Is(second, errSoldOut) {
			t.Errorf("the second attempt failed with %v", second)
		}
	})
}

// A waiter can tell why the engine ended an attempt, and a handler that is done
// with nothing still says so.
func TestErrorCodes(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		cases := map[string]struct {
			handle func(context.Context, any) (any, error)
			code   string
			is     error
		}{
			"timeout": {func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, coded{} }, "timeout", engine.ErrTimeout},
			"cause":   {func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, context.Cause(ctx) }, "timeout", engine.ErrTimeout},
			"fail":    {func(context.Context, any) (any, error) { return nil, engine.Fail(errors.New("no")) }, "fail", nil},
			"own":     {func(context.Context, any) (any, error) { return nil, engine.Fail(coded{}) }, "bank.closed", nil},
			"value":   {func(context.Context, any) (any, error) { return nil, errSoldOut }, "test.sold-out", errSoldOut},
			"panic":   {func(context.Context, any) (any, error) { panic(errSoldOut) }, "panic", errSoldOut},
		}
		var defs []engine.Definition
		for kind, c := range cases {
			defs = append(defs, engine.NewJob(kind, c.handle, engine.JobOptions{MaxAttempts: 1, Timeout: time.Second}))
		}
		p.run(engine.WorkerOptions{}, defs...)
		for kind, c := range cases {
			submit(t, p.Engine, kind, 1)
			info := ended(t, p.Engine, kind+".1", "failed", 1, 1)
			if err := info.Err(); info.Error.Code != c.code || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%s: failed with %v, code %q, want code %q and %v", kind, err, info.Error.Code, c.code, c.is)
			}
		}
		if err := (engine.JobInfo{State: "cancelled"}).Err(); errors.Unwrap(err) != nil {
			t.Errorf("a job without an error fails with %v", errors.Unwrap(err))
		}
	})
}
