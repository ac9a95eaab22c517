package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// Events that a stored trigger cannot map are kept with the reason, and those
// behind them start jobs.
func TestDeadEvents(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, byID)
	serve(t, connect(t, srv))
	before := time.Now().Add(-time.Minute)
	publish(t, nc, "orders.created", `no JSON`)
	publishMsg(t, nc, &nats.Msg{
		Subject: "orders.created", Data: []byte(`{"total":1}`),
		Header: nats.Header{"Shop": {"berlin", "bonn"}, "Nats-Expected-Stream": {captureStream}},
	})
	publish(t, nc, "orders.created", `{"id":"a","total":1}`)
	settled(t, eng, "new-orders", 3)
	if n := jobs(t, nc); n != 1 {
		t.Errorf("%d jobs, want 1", n)
	}

	dead := deadEvents(t, eng, "new-orders", 2)
	last := dead[0]
	if last.Time.Before(before) || last.Died.Before(last.Time) {
		t.Errorf("stored at %v, died at %v", last.Time, last.Died)
	}
	if !strings.HasPrefix(last.Reason, "id: ") || !strings.HasPrefix(dead[1].Reason, "when: ") {
		t.Errorf("reasons are %q and %q", last.Reason, dead[1].Reason)
	}
	last.Time, last.Died, last.Reason = time.Time{}, time.Time{}, ""
	want := engine.DeadEvent{
		Trigger: "new-orders", Subject: "orders.created", Data: []byte(`{"total":1}`), Size: 11, Stream: captureStream, Sequence: 2,
		Header: nats.Header{"Shop": {"berlin", "bonn"}, "Nats-Expected-Stream": {captureStream}},
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("dead event (-want +got):\n%s", diff)
	}
	if other := deadEvents(t, eng, "other", 0); other != nil {
		t.Errorf("got %v", other)
	}
}

// A mapping in Go may return an error, panic, or make what is no input.
func TestDeadInGo(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	job := engine.NewJob("any.thing", func(context.Context, any) (any, error) { return nil, nil })
	work(t, eng, engine.WorkerOptions{}, job, engine.On("any", engine.Subject("any"), job, func(m engine.Message) (any, error) {
		switch string(m.Data) {
		case "error":
			return nil, errors.New("first line\nsecond line")
		case "panic":
			panic("at the disco")
		case "function":
			return func() {}, nil
		}
		return string(m.Data), nil
	}))
	waitTrigger(t, eng, "any")
	for _, data := range []string{"error", "panic", "function", "good"} {
		publish(t, nc, "any", data)
	}
	settled(t, eng, "any", 4)
	for i, want := range []string{
		"the input of the job does not become JSON: json: unsupported type: func()",
		"panic: at the disco",
		"first line; second line",
	} {
		dead := deadEvents(t, eng, "any", 3)[i]
		if !strings.HasPrefix(dead.Reason, want) || strings.Contains(dead.Reason, "\n") {
			t.Errorf("reason %q, want %q", dead.Reason, want)
		}
		if (dead.Stack != "") != (i == 1) {
			t.Errorf("%s: stack %q", dead.Reason, dead.Stack)
		}
	}
}

// An event that is nearly as large as the server allows is kept as far as there
// is room.
func TestDeadLarge(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	apply(t, eng, byID)
	serve(t, eng)
	size := int(nc.MaxPayload())
	data := bytes.Repeat([]byte("x"), size)
	publishMsg(t, nc, &nats.Msg{Subject: "orders.created", Data: data})
	header := nats.Header{}
	for i := range 550 {
		header[fmt.Sprintf("H%d", i)] = []string{strings.Repeat("x", 100)}
	}
	publishMsg(t, nc, &nats.Msg{Subject: "orders.created", Header: header})
	settled(t, eng, "new-orders", 2)
	dead := deadEvents(t, eng, "", 2)
	if dead[0].Header != nil || dead[0].Size != 0 {
		t.Errorf("kept %d headers, want none", len(dead[0].Header))
	}
	if dead[1].Size != size || len(dead[1].Data) < size-1024 || !bytes.HasPrefix(data, dead[1].Data) {
		t.Errorf("kept %d bytes of %d", len(dead[1].Data), dead[1].Size)
	}
}

// Two triggers whose events make one ID for jobs of two kinds: neither takes the
// other's for its own.
func TestDeadOtherKind(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	mail := byID
	mail.Name, mail.Job = "mail", "order.mail"
	apply(t, eng, byID)
	apply(t, eng, mail)
	serve(t, eng)
	publish(t, nc, "orders.created", `{"id":"a","total":1}`)
	settled(t, eng, "new-orders", 1)
	settled(t, eng, "mail", 1)
	dead := deadEvents(t, eng, "", 1)
	if !strings.Contains(dead[0].Reason, "there is a job order.a of kind order.") {
		t.Errorf("reason %q", dead[0].Reason)
	}
}

// An event whose answer is lost when it is put on the list is put there once.
func TestDeadOnce(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
					if w.Number == 1 {
						return fault
					}
					return natstest.Pass
				}, "mr.default.dead.new-orders.>")
				eng, err := engine.Connect(t.Context(), link.Connect(t), engine.Options{Logger: voice(t)})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(eng.Close)
				apply(t, eng, byID)
				serve(t, eng)
				publish(t, natstest.Connect(t, srv), "orders.created", `no JSON`)
				other := connect(t, srv)
				settled(t, other, "new-orders", 1)
				if fault == natstest.Hold {
					link.Release()
				}
				deadEvents(t, other, "", 1)
				if n := streamInfo(t, natstest.Connect(t, srv), "mr_default_dead").State.LastSeq; n != 1 || len(link.Writes()) != 2 {
					t.Errorf("%d of %d writes were stored, want 1 of 2", n, len(link.Writes()))
				}
			})
		})
	}
}

// The list goes back beyond whatever else was put on it.
func TestDeadFarBack(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	rare := byID
	rare.Name, rare.Subject = "rare", "rare"
	apply(t, eng, rare)
	apply(t, eng, byID)
	serve(t, eng)
	publish(t, nc, "rare", `no JSON`)
	settled(t, eng, "rare", 1)
	const many = 200
	for range many {
		publish(t, nc, "orders.created", `no JSON`)
	}
	settled(t, eng, "new-orders", many)
	for limit := 1; limit < 10*many; limit *= 4 {
		if n := len(mustDead(t, eng, "rare", limit)); n != 1 {
			t.Errorf("limit %d: %d dead events of rare, want 1", limit, n)
		}
		list := mustDead(t, eng, "", limit)
		if len(list) != min(limit, many+1) {
			t.Errorf("limit %d: %d dead events", limit, len(list))
		}
		for i := 1; i < len(list); i++ {
			if list[i].Died.After(list[i-1].Died) {
				t.Fatalf("limit %d: event %d died after the one before it", limit, i)
			}
		}
	}
}

// Events that died can be read as JSON by programs.
func TestDeadEventJSON(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{`{"a":1}`: `{"a":1}`, "text": `"text"`, "\xff": `"/w=="`, "": "null"} {
		out, err := json.Marshal(engine.DeadEvent{Data: []byte(data)})
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Data json.RawMessage }
		if err := json.Unmarshal(out, &got); err != nil || string(got.Data) != want {
			t.Errorf("data %q became %s, %v, want %s", data, got.Data, err, want)
		}
	}
}

func mustDead(t testing.TB, eng *engine.Engine, trigger string, limit int) []engine.DeadEvent {
	t.Helper()
	list, err := eng.DeadEvents(t.Context(), trigger, limit)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// deadEvents returns the dead events of a trigger, of which there must be n.
func deadEvents(t testing.TB, eng *engine.Engine, trigger string, n int) []engine.DeadEvent {
	t.Helper()
	list := mustDead(t, eng, trigger, 0)
	if len(list) != n {
		t.Fatalf("%d dead events, want %d: %v", len(list), n, list)
	}
	return list
}
