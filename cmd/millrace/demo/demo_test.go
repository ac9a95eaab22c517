package demo

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/examples/orders"
)

// The plan of the example is what its events say to a reader.
func TestPlan(t *testing.T) {
	t.Parallel()
	var events []*nats.Msg
	for line := range bytes.Lines(orders.Events) {
		var event struct {
			Subject string
			Data    json.RawMessage
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		events = append(events, &nats.Msg{Subject: event.Subject, Data: event.Data})
	}
	p, err := NewPlan(events)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{
		"triggers": len(p.triggers), "events": len(p.events), "started": p.started, "jobs": p.jobs,
		"filtered": p.filtered, "repeated": p.repeated, "untouched": p.untouched, "unmapped": p.unmapped, "dead": p.dead,
	}
	want := map[string]int{
		"triggers": 4, "events": 14, "started": 11, "jobs": 16,
		"filtered": 1, "repeated": 1, "untouched": 1, "unmapped": 0, "dead": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// The board shows the last jobs in the order of their appearance, and what is
// new about each.
func TestBoard(t *testing.T) {
	t.Parallel()
	b := &board{jobs: map[string]engine.JobInfo{}}
	wrong := &engine.ErrorInfo{Message: "no\nluck"}
	for _, j := range []engine.JobInfo{
		{ID: "a.1", State: "pending"},
		{ID: "a.2", State: "pending"},
		{ID: "a.1", State: "running", Attempt: 1},
		{ID: "a.3", State: "pending", Attempt: 1, Attempts: []engine.AttemptInfo{{Error: wrong}}},
		{ID: "a.4", State: "succeeded", Attempt: 2, Result: json.RawMessage(`{"n":1}`), Attempts: []engine.AttemptInfo{{Error: wrong}, {}}},
		{ID: "a.5", State: "failed", Attempt: 1, Error: wrong},
		{ID: "a.6", State: "cancelled"},
	} {
		b.put(j)
	}
	b.sent()
	const want = `… 1 more above
JOB  KIND  STATE        ATTEMPT  TOOK  RESULT
a.2        · pending
a.3        · pending    1              no luck
a.4        ✓ succeeded  2              {"n":1} (at first: no luck)
a.5        ✗ failed     1              no luck
a.6        ✗ cancelled

1 event sent, 3 of 6 jobs ended
`
	if diff := cmp.Diff(want, b.table(5, 0)+b.progress()); diff != "" {
		t.Errorf("board (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(b.table(5, 30)) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 30 {
			t.Errorf("a line of %d characters on a terminal of 30: %s", n, line)
		}
	}
	if all, open, _ := b.count(); all != 6 || open != 3 {
		t.Errorf("counted %d jobs, %d open, want 6 and 3", all, open)
	}
}
