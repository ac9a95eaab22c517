package engine_test

import (
	"errors"
	"sync"
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

// written returns the last sequences of everything that Apply writes to.
func written(t testing.TB, nc *nats.Conn) map[string]uint64 {
	t.Helper()
	seqs := map[string]uint64{}
	for _, name := range []string{"KV_mr_default_config", "KV_mr_default_cursor"} {
		seqs[name] = streamInfo(t, nc, name).State.LastSeq
	}
	return seqs
}

// Applying is idempotent, and a dry run tells what would happen and does nothing.
func TestApply(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	before := written(t, nc)
	dry := engine.ApplyOptions{DryRun: true}
	check := func(trigger spec.Trigger, want engine.Applied, opts ...engine.ApplyOptions) {
		t.Helper()
		want.Key = trigger.Key()
		got, err := eng.Apply(t.Context(), trigger, opts...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("applied (-want +got):\n%s", diff)
		}
	}
	created := engine.Applied{Action: engine.Created, Changes: spec.Diff(spec.Trigger{}, newOrders)}
	check(newOrders, created, dry)
	if diff := cmp.Diff(before, written(t, nc)); diff != "" || captured(t, nc) != nil {
		t.Errorf("the dry run wrote (-before +after):\n%s, and captures %v", diff, captured(t, nc))
	}
	check(newOrders, created)
	before = written(t, nc)
	check(newOrders, engine.Applied{Action: engine.Unchanged})
	check(newOrders, engine.Applied{Action: engine.Unchanged}, dry)
	if diff := cmp.Diff(before, written(t, nc)); diff != "" {
		t.Errorf("applying it again wrote (-before +after):\n%s", diff)
	}
	changed := newOrders
	changed.ID, changed.Subject = "event.data.id", "orders.new"
	change := engine.Applied{Action: engine.Changed, Changes: []spec.Change{
		{Field: "subject", Old: "orders.created", New: "orders.new"}, {Field: "id", New: "event.data.id"},
	}}
	check(changed, change, dry)
	if diff := cmp.Diff(before, written(t, nc)); diff != "" {
		t.Errorf("the dry run wrote (-before +after):\n%s", diff)
	}
	check(changed, change)
	if diff := cmp.Diff([]string{"orders.new"}, captured(t, nc)); diff != "" {
		t.Errorf("captured (-want +got):\n%s", diff)
	}
	info, err := eng.Trigger(t.Context(), "new-orders")
	if err != nil || *info.Definition != changed || info.Subject != "orders.new" || info.Source != captureStream {
		t.Errorf("got %+v, %v", info, err)
	}
}

// A definition that is wrong is refused before anything is asked of NATS.
func TestApplyInvalid(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	_, err := eng.Apply(t.Context(), spec.Trigger{Name: "x", Subject: "a", Job: "b", When: "event.nothing"})
	var problems spec.Problems
	if !errors.As(err, &problems) {
		t.Errorf("got %v, want problems of the definition", err)
	}
}

// A trigger that another source has by now begins anew there.
func TestApplyMoves(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	createStream(t, nc, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"shop.>"}})
	serve(t, connect(t, srv))
	moved := func(trigger spec.Trigger, subject string, events uint64) {
		t.Helper()
		publish(t, nc, subject, `{}`) // too early
		apply(t, eng, trigger)
		publish(t, nc, subject, `{}`)
		settled(t, eng, "new-orders", events)
	}
	moved(newOrders, "orders.created", 1)
	moved(onStream("new-orders", "ORDERS", "shop.a"), "shop.a", 2)
	if s := captured(t, nc); s != nil {
		t.Errorf("captured %v, want nothing", s)
	}
	moved(onStream("new-orders", "ORDERS", "shop.b"), "shop.b", 4)
	moved(newOrders, "orders.created", 1)
	if n := streamInfo(t, nc, "ORDERS").State.Consumers; n != 0 {
		t.Errorf("stream ORDERS has %d consumers, want none", n)
	}
	if n := jobs(t, nc); n != 4 {
		t.Errorf("%d jobs, want 4", n)
	}
}

// Several engines that apply at once lose nobody's subject.
func TestApplyAtOnce(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	names := []string{"a", "b", "c", "d"}
	engines := []*engine.Engine{connect(t, srv), connect(t, srv)}
	var wg sync.WaitGroup
	for _, eng := range engines {
		for _, name := range names {
			wg.Go(func() {
				if _, err := eng.Apply(t.Context(), onSubject(name, "orders."+name)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	want := []string{"orders.a", "orders.b", "orders.c", "orders.d"}
	if diff := cmp.Diff(want, captured(t, natstest.Connect(t, srv))); diff != "" {
		t.Errorf("captured (-want +got):\n%s", diff)
	}
	list, err := engines[0].Triggers(t.Context())
	if err != nil || len(list) != len(names) {
		t.Fatalf("got %v, %v, want %d triggers", list, err, len(names))
	}
	for i, info := range list {
		if info.Name != names[i] || info.Declared != "stored" || info.Waiting == nil {
			t.Errorf("got %+v, want %s in place", info, names[i])
		}
	}
}

// A stream that has no room for the trigger's consumer leaves nothing behind, and
// a trigger that was there before stays as it was.
func TestApplyUndone(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	createStream(t, nc, jetstream.StreamConfig{Name: "FULL", Subjects: []string{"full"}, MaxConsumers: 1})
	if _, err := jetStream(t, nc).CreateConsumer(t.Context(), "FULL", jetstream.ConsumerConfig{Durable: "other"}); err != nil {
		t.Fatal(err)
	}
	_, err := eng.Apply(t.Context(), onSubject("new-orders", "full"))
	refused(t, err, "engine: apply trigger new-orders: create consumer mr_default_new-orders of stream FULL")
	if _, err := eng.Trigger(t.Context(), "new-orders"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("got %v, want %v", err, engine.ErrNotFound)
	}

	apply(t, eng, newOrders)
	_, err = eng.Apply(t.Context(), onSubject("new-orders", "full"))
	refused(t, err, "create consumer mr_default_new-orders of stream FULL")
	info, err := eng.Trigger(t.Context(), "new-orders")
	if err != nil || *info.Definition != newOrders {
		t.Errorf("got %+v, %v, want it as it was", info, err)
	}
	publish(t, nc, "orders.created", `{}`)
	serve(t, eng)
	settled(t, eng, "new-orders", 1)
	if n := jobs(t, nc); n != 1 {
		t.Errorf("%d jobs, want 1", n)
	}
}

// What cannot be read in the config bucket is passed over, shown, and can be
// deleted; other triggers run.
func TestStoredNonsense(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	js := jetStream(t, nc)
	for key, msg := range map[string]*nats.Msg{
		"nonsense": {Data: []byte("nonsense")},
		"newer":    {Data: []byte(`{}`), Header: nats.Header{"Mr-Type": {"trigger/99"}}},
		"invalid":  {Data: []byte(`{"name":"invalid","subject":"a","job":"b","when":"("}`)},
		"other":    {Data: []byte(`{"name":"another","subject":"a","job":"b"}`)},
		"byhand":   {Data: []byte(`{"kind":"Trigger","name":"byhand","subject":"hand","job":"order.fulfil"}`)},
	} {
		msg.Subject = "$KV.mr_default_config.trigger." + key
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, eng)
	waitTrigger(t, eng, "byhand")
	publish(t, nc, "hand", `{}`)
	settled(t, eng, "byhand", 1)
	list, err := eng.Triggers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]bool{}
	for _, info := range list {
		bad[info.Name] = info.Problem != ""
	}
	if diff := cmp.Diff(map[string]bool{"nonsense": true, "newer": true, "invalid": true, "other": true, "byhand": false}, bad); diff != "" {
		t.Errorf("triggers with a problem (-want +got):\n%s", diff)
	}
	for name := range bad {
		if err := eng.DeleteTrigger(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if list, err := eng.Triggers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want no triggers", list, err)
	}
}

// A definition that was deleted behind our back leaves nothing captured.
func TestDeletedByHand(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	kv, err := jetStream(t, nc).KeyValue(t.Context(), "mr_default_config")
	if err != nil {
		t.Fatal(err)
	}
	remove := func() {
		if err := kv.Delete(t.Context(), "trigger.new-orders"); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, eng, newOrders)
	remove()
	stop := serve(t, eng) // finds it gone
	until(t, func() ([]string, bool) { s := captured(t, nc); return s, s == nil })
	apply(t, eng, newOrders)
	remove() // is told
	until(t, func() ([]string, bool) { s := captured(t, nc); return s, s == nil })
	stop()
}

// The answer to any write of Apply may be lost: the trigger is in place, or the
// caller is told and can apply it again.
func TestApplyLostAnswers(t *testing.T) {
	for number := 1; number <= 2; number++ {
		for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter} {
			t.Run(fault.String(), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					armed, left := false, number
					link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault {
						if armed {
							left--
						}
						if armed && left == 0 {
							return fault
						}
						return natstest.Pass
					}, "$KV.mr_default_config.trigger.*", "$KV.mr_default_cursor.>")
					eng, err := engine.Connect(t.Context(), link.Connect(t), engine.Options{Logger: voice(t)})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(eng.Close)
					armed = true
					for try := 0; ; try++ {
						if _, err := eng.Apply(t.Context(), newOrders); err == nil {
							break
						} else if try == 10 {
							t.Fatal(err)
						}
						time.Sleep(time.Second)
					}
					nc := natstest.Connect(t, srv)
					publish(t, nc, "orders.created", `{}`)
					serve(t, connect(t, srv))
					settled(t, eng, "new-orders", 1)
					if n := jobs(t, nc); n != 1 {
						t.Errorf("%d jobs, want 1", n)
					}
				})
			})
		}
	}
}
