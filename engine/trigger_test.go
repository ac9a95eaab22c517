package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

type order struct {
	ID    string `json:"id"`
	Total int    `json:"total"`
}

// serve runs the engine's Serve until the test ends, or until the function that
// it returns is called.
func serve(t testing.TB, eng *engine.Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := eng.Serve(ctx); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// fulfil is a job that tells what it got.
func fulfil(got chan<- order) *engine.Job[order, string] {
	return engine.NewJob("order.fulfil", func(_ context.Context, o order) (string, error) {
		got <- o
		return "", nil
	})
}

func apply(t testing.TB, eng *engine.Engine, trigger spec.Trigger) engine.Applied {
	t.Helper()
	applied, err := eng.Apply(t.Context(), trigger)
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

func publish(t testing.TB, nc *nats.Conn, subject, data string) {
	t.Helper()
	if err := nc.Publish(subject, []byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(20 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// receive returns what comes next, or fails.
func receive[T any](t testing.TB, got <-chan T) T {
	t.Helper()
	select {
	case v := <-got:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

var newOrders = spec.Trigger{Name: "new-orders", Subject: "orders.created", Job: "order.fulfil", ID: "event.data.id", When: "event.data.total > 0"}

// An event that is published after apply returned starts a job, although nobody
// ran the trigger by then.
func TestStoredTrigger(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, newOrders)
	publish(t, nc, "orders.created", `{"id":"free","total":0}`)
	publish(t, nc, "orders.created", `{"id":"a","total":1}`)

	got := make(chan order, 1)
	serve(t, connect(t, srv))
	work(t, connect(t, srv), engine.WorkerOptions{}, fulfil(got))
	if o := receive(t, got); o != (order{"a", 1}) {
		t.Errorf("got %v", o)
	}
	info, err := eng.Wait(t.Context(), "order.a")
	if err != nil || info.State != "succeeded" {
		t.Errorf("got %s, %v", info.State, err)
	}
}

// A trigger in Go starts jobs of what is published once its worker has run.
func TestGoTrigger(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	got := make(chan order, 10)
	job := fulfil(got)
	trigger := engine.On("new-orders", engine.Subject("orders.*"), job, func(m engine.Message) (o order, err error) {
		if m.Subject != "orders.created" {
			return o, engine.Skip
		}
		return o, m.Decode(&o)
	})
	nc := natstest.Connect(t, srv)
	eng := connect(t, srv)
	stop := work(t, eng, engine.WorkerOptions{}, job, trigger)
	waitTrigger(t, eng, "new-orders")
	publish(t, nc, "orders.created", `{"id":"a","total":1}`)
	receive(t, got)
	stop()
	publish(t, nc, "orders.deleted", `{"id":"x","total":1}`)
	publish(t, nc, "orders.created", `{"id":"b","total":1}`)
	work(t, connect(t, srv), engine.WorkerOptions{}, job, trigger)
	if o := receive(t, got); o.ID != "b" {
		t.Errorf("got %v, want b", o)
	}
	until(t, func() ([]engine.JobInfo, bool) {
		jobs, err := eng.List(t.Context(), engine.ListOptions{State: "succeeded"})
		return jobs, err == nil && len(jobs) == 2
	})
}

// waitTrigger waits until a trigger is in place.
func waitTrigger(t testing.TB, eng *engine.Engine, name string) engine.TriggerInfo {
	t.Helper()
	return until(t, func() (engine.TriggerInfo, bool) {
		info, err := eng.Trigger(t.Context(), name)
		return info, err == nil && info.Waiting != nil
	})
}

// until asks again until look is content.
func until[T any](t testing.TB, look func() (T, bool)) T {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for {
		if v, ok := look(); ok {
			return v
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not come to be")
		}
	}
}

var (
	_ = json.Valid
	_ = errors.New
	_ = fmt.Sprint
	_ = strings.Cut
	_ jetstream.JetStream
)
