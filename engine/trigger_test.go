package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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

var newOrders = spec.Trigger{Name: "new-orders", Subject: "orders.created", Job: "order.fulfil"}

// byID is newOrders with the ID and the condition that events bring along.
var byID = spec.Trigger{Name: "new-orders", Subject: "orders.created", Job: "order.fulfil", ID: "event.data.id", When: "event.data.total > 0"}

// An event that is published after Apply returned starts a job, although nobody
// ran the trigger by then.
func TestStoredTrigger(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, byID)
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

// A trigger in Go starts jobs of what is published once its worker has run, also
// of what is published while no worker runs.
func TestGoTrigger(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	got := make(chan order, 10)
	job := fulfil(got)
	trigger := engine.On("new-orders", engine.Subject("orders.*"), job, func(m engine.Message) (o order, err error) {
		if m.Subject != "orders.created" {
			return o, engine.ErrSkip
		}
		return o, m.Decode(&o)
	})
	nc, eng := natstest.Connect(t, srv), connect(t, srv)
	publish(t, nc, "orders.created", `{"id":"early"}`)
	stop := work(t, eng, engine.WorkerOptions{}, job, trigger)
	waitTrigger(t, eng, "new-orders")
	publish(t, nc, "orders.created", `{"id":"a"}`)
	if o := receive(t, got); o.ID != "a" {
		t.Errorf("got %v, want a", o)
	}
	stop()
	publish(t, nc, "orders.deleted", `{"id":"x"}`)
	publish(t, nc, "orders.created", `{"id":"b"}`)
	work(t, connect(t, srv), engine.WorkerOptions{}, job, trigger)
	if o := receive(t, got); o.ID != "b" {
		t.Errorf("got %v, want b", o)
	}
	settled(t, eng, "new-orders", 3)
	if n := jobs(t, nc); n != 2 {
		t.Errorf("%d jobs, want 2", n)
	}
}

// A trigger in Go without a mapping takes the data as it is, and its ID says
// which events are one.
func TestGoTriggerID(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	got := make(chan order, 10)
	job := fulfil(got)
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	work(t, eng, engine.WorkerOptions{}, job, engine.On("new-orders", engine.Subject("orders.created"), job, nil,
		engine.TriggerOptions[order]{ID: func(m engine.Message, o order) string { return m.Header.Get("Shop") + o.ID }}))
	waitTrigger(t, eng, "new-orders")
	for range 3 {
		publishMsg(t, nc, &nats.Msg{Subject: "orders.created", Data: []byte(`{"id":"a b"}`), Header: nats.Header{"Shop": {"berlin/"}}})
	}
	receive(t, got)
	settled(t, eng, "new-orders", 3)
	list, err := eng.List(t.Context())
	if err != nil || len(list) != 1 || !strings.HasPrefix(list[0].ID, "order.berlin-a-b--") {
		t.Errorf("got %v, %v, want one job order.berlin-a-b--…", list, err)
	}
}

// What is wrong with a trigger is told by Worker, all of it on one line.
func TestGoTriggerRefused(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	job := fulfil(nil)
	bad := engine.NewJob[order, string]("order fulfil", nil)
	for want, defs := range map[string][]engine.Definition{
		`engine: trigger "new orders": name "new orders" contains ' '`: {engine.On("new orders", engine.Subject("orders.created"), job, nil)},
		`it has no source`:                                         {engine.On("a", engine.Subject(""), job, nil)},
		`belongs to NATS itself`:                                   {engine.On("a", engine.Subject("$JS.>"), job, nil)},
		`is no name that a stream can have`:                        {engine.On("a", engine.Stream("OR.DERS", ""), job, nil)},
		`">" before its end`:                                       {engine.On("a", engine.Stream("ORDERS", ">.x"), job, nil)},
		`kind "order fulfil" contains`:                             {engine.On("a", engine.Subject("x"), bad, nil)},
		`job is nil`:                                               {engine.On[order, string]("a", engine.Subject("x"), nil, nil)},
		`the worker has two triggers of that`:                      {engine.On("a", engine.Subject("x"), job, nil), engine.On("a", engine.Subject("y"), job, nil)},
		`contains ' ': use only A-Z a-z 0-9 _ -; it has no source`: {engine.On("a b", engine.Source{}, job, nil)},
	} {
		_, err := eng.Worker(engine.WorkerOptions{}, defs...)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Stored triggers and triggers in Go share their names.
func TestTriggerNames(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng := connect(t, srv)
	job := fulfil(nil)
	inGo := engine.On("new-orders", engine.Subject("orders.created"), job, nil)
	stop := work(t, eng, engine.WorkerOptions{}, job, inGo)
	waitTrigger(t, eng, "new-orders")
	_, err := eng.Apply(t.Context(), newOrders)
	refused(t, err, "workers bring along a trigger of this name, made in Go")
	kv, err := jetStream(t, natstest.Connect(t, srv)).KeyValue(t.Context(), "mr_default_config")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "trigger.new-orders", `{"name":"new-orders","subject":"x","job":"y"}`); err != nil {
		t.Fatal(err)
	}
	info, err := eng.Trigger(t.Context(), "new-orders")
	if err != nil || !strings.HasPrefix(info.Problem, "workers bring along a trigger of this name") {
		t.Errorf("stored by hand: got problem %q, %v", info.Problem, err)
	}
	stop()
	if err := eng.DeleteTrigger(t.Context(), "new-orders"); err != nil {
		t.Fatal(err)
	}

	apply(t, eng, newOrders)
	worker, err := eng.Worker(engine.WorkerOptions{}, job, inGo)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, worker.Run(t.Context()), "engine: trigger new-orders: there is a stored trigger of this name")
}

// The last of two programs that have a trigger of one name has it; the other
// one yields.
func TestGoTriggerYields(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		got := make(chan string, 10)
		version := func(subject string) (engine.Definition, engine.Definition) {
			job := engine.NewJob("order.fulfil", func(context.Context, order) (string, error) { return "", nil })
			return job, engine.On("new-orders", engine.Subject(subject), job, func(m engine.Message) (o order, err error) {
				got <- subject + " got " + string(m.Data)
				return o, nil
			})
		}
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		job, older := version("orders.old")
		work(t, eng, engine.WorkerOptions{}, job, older)
		waitTrigger(t, eng, "new-orders")
		publish(t, nc, "orders.old", "1")
		if s := receive(t, got); s != "orders.old got 1" {
			t.Error(s)
		}
		// The runner would take a consumer that was made at the same instant for its own, and
		// write how far it got while the new one is placed.
		time.Sleep(time.Second)
		job, newer := version("orders.new")
		work(t, connect(t, srv), engine.WorkerOptions{}, job, newer)
		until(t, func() (engine.TriggerInfo, bool) {
			info, err := eng.Trigger(t.Context(), "new-orders")
			return info, err == nil && info.Subject == "orders.new"
		})
		before := streamInfo(t, nc, "KV_mr_default_cursor").State.LastSeq
		time.Sleep(2 * time.Minute)
		if now := streamInfo(t, nc, "KV_mr_default_cursor").State.LastSeq; now != before {
			t.Errorf("%d writes, so the first one took it back", now-before)
		}
		publish(t, nc, "orders.old", "2")
		publish(t, nc, "orders.new", "3")
		if s := receive(t, got); s != "orders.new got 3" {
			t.Error(s)
		}
	})
}

// Published again with an ID of their own, events start nothing.
func TestThousandEvents(t *testing.T) {
	t.Parallel()
	const events = 1000
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, byID)
	got := make(chan order, events)
	serve(t, connect(t, srv))
	serve(t, connect(t, srv)) // they share the events
	work(t, connect(t, srv), engine.WorkerOptions{Slots: 64}, fulfil(got))
	for round := range 2 {
		for i := range events {
			if err := nc.Publish("orders.created", fmt.Appendf(nil, `{"id":"o%d","total":%d}`, i, i+1)); err != nil {
				t.Fatal(err)
			}
		}
		for range events * (1 - round) {
			receive(t, got)
		}
		settled(t, eng, "new-orders", uint64(events*(round+1)))
	}
	if n := jobs(t, nc); n != events || len(got) > 0 {
		t.Errorf("%d jobs and %d more runs, want %d and none", n, len(got), events)
	}
	for i := range events {
		info, err := eng.Wait(t.Context(), fmt.Sprintf("order.o%d", i))
		if err != nil || info.State != "succeeded" || info.Attempt != 1 {
			t.Fatalf("job %d: %s, attempt %d, %v", i, info.State, info.Attempt, err)
		}
	}
}

// An event's trace goes on in its job.
func TestEventTrace(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, byID)
	serve(t, connect(t, srv))
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	publishMsg(t, nc, &nats.Msg{
		Subject: "orders.created", Data: []byte(`{"id":"a","total":1}`),
		Header: nats.Header{"traceparent": {parent}, "Other": {"x"}},
	})
	settled(t, eng, "new-orders", 1)
	msg := lastOf(t, nc, "KV_mr_default_jobs", "$KV.mr_default_jobs.order.a")
	if got := msg.Header.Get("traceparent"); got != parent {
		t.Errorf("trace %q, want %q", got, parent)
	}
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

// refused checks that an error says something, on one line.
func refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want %s", err, want)
	}
}

func publish(t testing.TB, nc *nats.Conn, subject, data string) {
	t.Helper()
	publishMsg(t, nc, &nats.Msg{Subject: subject, Data: []byte(data)})
}

func publishMsg(t testing.TB, nc *nats.Conn, msg *nats.Msg) {
	t.Helper()
	if err := nc.PublishMsg(msg); err != nil {
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
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// until looks again and again until it sees what it wants.
func until[T any](t testing.TB, look func() (T, bool)) T {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for {
		v, ok := look()
		if ok {
			return v
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("it did not come to be: %+v", v)
		}
	}
}

// waitTrigger waits until a trigger is in place.
func waitTrigger(t testing.TB, eng *engine.Engine, name string) engine.TriggerInfo {
	t.Helper()
	return until(t, func() (engine.TriggerInfo, bool) {
		info, err := eng.Trigger(t.Context(), name)
		return info, err == nil && info.Waiting != nil
	})
}

// settled waits until the trigger's stream has had so many events and nothing of
// them waits.
func settled(t testing.TB, eng *engine.Engine, name string, events uint64) {
	t.Helper()
	until(t, func() (engine.TriggerInfo, bool) {
		info, err := eng.Trigger(t.Context(), name)
		return info, err == nil && info.Waiting != nil && *info.Waiting == 0 && info.Handled >= events
	})
}

func jetStream(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// jobs returns how many jobs there are.
func jobs(t testing.TB, nc *nats.Conn) uint64 {
	t.Helper()
	return streamInfo(t, nc, "KV_mr_default_jobs").State.Msgs
}

func streamInfo(t testing.TB, nc *nats.Conn, name string) *jetstream.StreamInfo {
	t.Helper()
	s, err := jetStream(t, nc).Stream(t.Context(), name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	return s.CachedInfo()
}

func lastOf(t testing.TB, nc *nats.Conn, stream, subject string) *jetstream.RawStreamMsg {
	t.Helper()
	s, err := jetStream(t, nc).Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := s.GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	return msg
}
