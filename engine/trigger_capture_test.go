package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

const captureStream = "mr_default_capture"

func onSubject(name, subject string) spec.Trigger {
	return spec.Trigger{Name: name, Subject: subject, Job: "order.fulfil"}
}

func onStream(name, stream, filter string) spec.Trigger {
	return spec.Trigger{Name: name, Stream: stream, Filter: filter, Job: "order.fulfil"}
}

func createStream(t testing.TB, nc *nats.Conn, config jetstream.StreamConfig) {
	t.Helper()
	if _, err := jetStream(t, nc).CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

func captured(t testing.TB, nc *nats.Conn) []string {
	t.Helper()
	s, err := jetStream(t, nc).Stream(t.Context(), captureStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(slices.Values(s.CachedInfo().Config.Subjects))
}

// The capture stream has the smallest cover of all subjects, whoever needs them,
// and goes away with the last of them.
func TestCaptureCover(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	check := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, captured(t, nc)); diff != "" {
			t.Errorf("captured subjects (-want +got):\n%s", diff)
		}
	}
	apply(t, eng, onSubject("a", "orders.created"))
	apply(t, eng, onSubject("b", "orders.created"))
	check("orders.created")
	job := fulfil(nil)
	stop := work(t, eng, engine.WorkerOptions{}, job, engine.On("in-go", engine.Subject("bills.>"), job, nil))
	waitTrigger(t, eng, "in-go")
	check("bills.>", "orders.created")
	apply(t, eng, onSubject("c", "orders.*"))
	check("bills.>", "orders.*")
	apply(t, eng, onSubject("c", "mails.new"))
	check("bills.>", "mails.new", "orders.created")

	_, err := eng.Apply(t.Context(), onSubject("d", "*.created"))
	refused(t, err, `"*.created" and "bills.>" cross, and neither contains the other`)
	_, err = eng.Trigger(t.Context(), "d")
	if !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("refused trigger d: got %v, want %v", err, engine.ErrNotFound)
	}
	check("bills.>", "mails.new", "orders.created")

	stop()
	for _, name := range []string{"a", "in-go", "c"} {
		if err := eng.DeleteTrigger(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	check("orders.created")
	if err := eng.DeleteTrigger(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	check()
	if err := eng.DeleteTrigger(t.Context(), "b"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("delete again: got %v, want %v", err, engine.ErrNotFound)
	}
}

// Deleted and applied again within the second in which the stream was created,
// a trigger still makes a new job of every event.
func TestCaptureAgain(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	serve(t, connect(t, srv))
	for range 2 {
		apply(t, eng, newOrders)
		publish(t, nc, "orders.created", `{}`)
		settled(t, eng, "new-orders", 1)
		if err := eng.DeleteTrigger(t.Context(), "new-orders"); err != nil {
			t.Fatal(err)
		}
	}
	if n := jobs(t, nc); n != 2 {
		t.Errorf("%d jobs, want 2", n)
	}
}

// A request on a captured subject gets the answer of its service and no other,
// and is an event all the same.
func TestCaptureAnswersNothing(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, newOrders)
	serve(t, connect(t, srv))
	ask, service := make(chan *nats.Msg, 1), natstest.Connect(t, srv)
	if _, err := service.ChanSubscribe("orders.created", ask); err != nil {
		t.Fatal(err)
	}
	if err := service.FlushTimeout(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	inbox := nc.NewInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("orders.created", inbox, []byte(`{"id":"a"}`)); err != nil {
		t.Fatal(err)
	}
	settled(t, eng, "new-orders", 1) // by now JetStream would have answered
	if err := receive(t, ask).Respond([]byte("thanks")); err != nil {
		t.Fatal(err)
	}
	msg, err := answers.NextMsg(20 * time.Second)
	if err != nil || string(msg.Data) != "thanks" {
		t.Fatalf("got %v, %v, want thanks", msg, err)
	}
	if err := nc.FlushTimeout(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if n, _, err := answers.Pending(); n != 0 || err != nil {
		t.Errorf("%d more answers, %v", n, err)
	}
	if n := jobs(t, nc); n != 1 {
		t.Errorf("%d jobs, want 1", n)
	}
}

// A subject that a stream has already is read there, from now on.
func TestSubjectOfStream(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	createStream(t, nc, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	publish(t, nc, "orders.created", `{"id":"before","total":1}`)
	apply(t, eng, byID)
	publish(t, nc, "orders.created", `{"id":"after","total":1}`)
	publish(t, nc, "orders.deleted", `{"id":"other","total":1}`)
	serve(t, eng)
	settled(t, eng, "new-orders", 2)
	if subjects := captured(t, nc); subjects != nil {
		t.Errorf("captured %v, want nothing", subjects)
	}
	list, err := eng.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != "order.after" {
		t.Errorf("got %v, %v, want order.after", list, err)
	}
	info, err := eng.Trigger(t.Context(), "new-orders")
	if err != nil || info.Source != "ORDERS" {
		t.Errorf("source %s, %v, want ORDERS", info.Source, err)
	}
}

// Sources that cannot be read are refused on one line, and nothing stays.
func TestSourceRefused(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	createStream(t, nc, jetstream.StreamConfig{Name: "LIMITS", Subjects: []string{"limits.a", "limits.b.*"}})
	createStream(t, nc, jetstream.StreamConfig{Name: "WORK", Subjects: []string{"work.>"}, Retention: jetstream.WorkQueuePolicy})
	createStream(t, nc, jetstream.StreamConfig{Name: "INTEREST", Subjects: []string{"interest.>"}, Retention: jetstream.InterestPolicy})
	if _, err := jetStream(t, nc).CreateConsumer(t.Context(), "LIMITS", jetstream.ConsumerConfig{Durable: "mr_default_taken"}); err != nil {
		t.Fatal(err)
	}
	job := fulfil(nil)
	for _, c := range []struct {
		trigger spec.Trigger
		want    string
	}{
		{onStream("x", "NONE", "orders.>"), "there is no stream NONE: create it first"},
		{onStream("x", "WORK", "work.a"), "stream WORK is a work queue, and a trigger would take its messages away"},
		{onSubject("x", "work.a"), "stream WORK is a work queue"},
		{onStream("x", "INTEREST", ""), "stream INTEREST has interest retention"},
		{onStream("x", "LIMITS", "orders.>"), "stream LIMITS has no subject that orders.> takes in: its subjects are limits.a, limits.b.*"},
		{onSubject("x", "limits.>"), "stream LIMITS has limits.a, a part of subject limits.>"},
		{onSubject("x", "limits.*.c"), "stream LIMITS has limits.b.*, a part of subject limits.*.c"},
		{onStream("taken", "LIMITS", "limits.a"), "consumer mr_default_taken of stream LIMITS is not this trigger's"},
	} {
		_, err := eng.Apply(t.Context(), c.trigger)
		refused(t, err, "engine: apply trigger "+c.trigger.Name+": "+c.want)
		if _, err := eng.Apply(t.Context(), c.trigger, engine.ApplyOptions{DryRun: true}); c.trigger.Name != "taken" {
			refused(t, err, c.want)
		}
		if _, err := eng.Trigger(t.Context(), c.trigger.Name); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: got %v, want %v", c.want, err, engine.ErrNotFound)
		}
		source := engine.Subject(c.trigger.Subject)
		if c.trigger.Stream != "" {
			source = engine.Stream(c.trigger.Stream, c.trigger.Filter)
		}
		worker, err := eng.Worker(engine.WorkerOptions{}, job, engine.On(c.trigger.Name, source, job, nil))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, worker.Run(t.Context()), "engine: trigger "+c.trigger.Name+": "+c.want)
	}
	if list, err := eng.Triggers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want no triggers", list, err)
	}
}

// Two triggers on one subject, and on overlapping ones, each get every event.
func TestSharedSubject(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	for name, subject := range map[string]string{"a": "orders.created", "b": "orders.created", "c": "orders.>"} {
		apply(t, eng, onSubject(name, subject))
	}
	serve(t, eng)
	for range 10 {
		publish(t, nc, "orders.created", `{}`)
	}
	for _, name := range []string{"a", "b", "c"} {
		settled(t, eng, name, 10)
	}
	list, err := eng.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, j := range list {
		name, _, _ := strings.Cut(strings.TrimPrefix(j.ID, "order."), "=")
		count[name]++
	}
	if diff := cmp.Diff(map[string]int{"a": 10, "b": 10, "c": 10}, count); diff != "" {
		t.Errorf("jobs of each trigger (-want +got):\n%s", diff)
	}
}

// A new trigger on a subject that is captured already sees what is published
// from now on, and not what others have seen before.
func TestFromNowOn(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	serve(t, connect(t, srv))
	apply(t, eng, onSubject("a", "orders.created"))
	publish(t, nc, "orders.created", `{}`)
	settled(t, eng, "a", 1)
	apply(t, eng, onSubject("b", "orders.created"))
	publish(t, nc, "orders.created", `{}`)
	settled(t, eng, "b", 2)
	settled(t, eng, "a", 2)
	if n := jobs(t, nc); n != 3 {
		t.Errorf("%d jobs, want 3: two of a and one of b", n)
	}
}

// A stream that is deleted and made again begins with the same sequences: its
// events start jobs of their own, also those from before the trigger found it.
func TestStreamAgain(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		config := jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}
		createStream(t, nc, config)
		apply(t, eng, onStream("new-orders", "ORDERS", "orders.created"))
		serve(t, connect(t, srv))
		publish(t, nc, "orders.created", `{}`)
		settled(t, eng, "new-orders", 1)
		if err := jetStream(t, nc).DeleteStream(t.Context(), "ORDERS"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // the runner waits for the stream
		createStream(t, nc, config)
		publish(t, nc, "orders.created", `{}`)
		settled(t, eng, "new-orders", 1)
		if n := jobs(t, nc); n != 2 {
			t.Errorf("%d jobs, want 2", n)
		}
	})
}

// When the stream that had the subject goes away, the subject is captured.
func TestStreamGone(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		createStream(t, nc, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
		apply(t, eng, newOrders)
		serve(t, connect(t, srv))
		until(t, func() (int, bool) { return 0, streamInfo(t, nc, "ORDERS").State.Consumers == 1 })
		if err := jetStream(t, nc).DeleteStream(t.Context(), "ORDERS"); err != nil {
			t.Fatal(err)
		}
		until(t, func() ([]string, bool) { s := captured(t, nc); return s, len(s) == 1 })
		publish(t, nc, "orders.created", `{}`)
		settled(t, eng, "new-orders", 1)
		if n := jobs(t, nc); n != 1 {
			t.Errorf("%d jobs, want 1", n)
		}
	})
}

// A consumer that somebody deletes is made again where it stood. What was
// published meanwhile starts jobs, what was handled does not start them again.
func TestConsumerDeleted(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		apply(t, eng, newOrders)
		stop := serve(t, connect(t, srv))
		for range 5 {
			publish(t, nc, "orders.created", `{}`)
		}
		settled(t, eng, "new-orders", 5)
		time.Sleep(10 * time.Second) // how far it got is written down now and then
		js := jetStream(t, nc)
		deleteConsumer := func() {
			if err := js.DeleteConsumer(t.Context(), captureStream, "mr_default_new-orders"); err != nil {
				t.Fatal(err)
			}
		}
		begins := func(want uint64) {
			t.Helper()
			consumer, err := js.Consumer(t.Context(), captureStream, "mr_default_new-orders")
			if err != nil || consumer.CachedInfo().Config.OptStartSeq != want {
				t.Errorf("consumer begins at %d, %v, want %d", consumer.CachedInfo().Config.OptStartSeq, err, want)
			}
		}
		deleteConsumer()
		publish(t, nc, "orders.created", `{}`)
		settled(t, eng, "new-orders", 6)
		begins(6)
		stop()
		deleteConsumer()
		publish(t, nc, "orders.created", `{}`)
		serve(t, connect(t, srv))
		settled(t, eng, "new-orders", 7)
		begins(7)
		if n := jobs(t, nc); n != 7 {
			t.Errorf("%d jobs, want 7", n)
		}
	})
}

// Two namespaces of one account want the same subject: both get its events, also
// when the one that captured it wants it no more.
func TestTwoNamespaces(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		a := connect(t, srv, engine.Options{Namespace: "a"})
		b := connect(t, srv, engine.Options{Namespace: "b"})
		for _, eng := range []*engine.Engine{a, b} {
			apply(t, eng, newOrders)
			serve(t, eng)
		}
		apply(t, a, onSubject("other", "bills"))
		publish(t, nc, "orders.created", `{}`)
		settled(t, a, "new-orders", 1)
		settled(t, b, "new-orders", 1)
		if err := a.DeleteTrigger(t.Context(), "new-orders"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		publish(t, nc, "orders.created", `{}`)
		until(t, func() (uint64, bool) { n := streamInfo(t, nc, "KV_mr_b_jobs").State.Msgs; return n, n == 2 })
		if n := streamInfo(t, nc, "KV_mr_a_jobs").State.Msgs; n != 1 {
			t.Errorf("%d jobs in namespace a, want 1", n)
		}
	})
}
