package broadcast_test

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/broadcast"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// rumour says that a child has ended.
func (w *world) rumour(parent, part string, how machine.State) {
	w.Helper()
	data := must(json.Marshal(store.Ending{Parent: parent, Part: part, State: how}))(w)
	h := streams.Envelope{Type: "ending", Version: 1}.Header()
	must(0, w.pub.Conn().PublishMsg(&nats.Msg{Subject: store.EndingSubject(ns), Header: h, Data: data}))(w)
}

// wantKept fails the test unless a keeper keeps n families.
func (w *world) wantKept(k *keeping, n int) {
	w.Helper()
	if got := k.Families(); got != n {
		w.Errorf("the keeper keeps %d families, want %d", got, n)
	}
}

// A parent that does not wait any more is forgotten, whoever ended it, and its
// children end.
func TestForgets(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		k := w.keep("k", nil)
		w.submit(parent(3, nil))
		time.Sleep(moment)
		w.wantKept(k, 1)
		w.end(0, machine.Succeeded)
		must(w.Cancel(w.Context(), "q.1", "test"))(w)
		time.Sleep(polled)
		w.wantKept(k, 0)
		w.wantOpen()
		must(0, w.Delete(w.Context(), "q.1"))(w)
		w.rumour("q.1", "n000", machine.Succeeded)
		time.Sleep(polled)
		w.wantKept(k, 0)
	})
}

// Whoever cancelled the parent has died before the parts were told.
func TestRecalls(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		k := w.keep("k", nil)
		w.submit(parent(3, nil))
		time.Sleep(moment)
		w.claim(1)
		w.change(w.get("q.1"), machine.Stopped{Cause: "test", At: time.Now()})
		w.wantOpen(0, 1, 2)
		time.Sleep(polled)
		w.wantOpen(1)
		if w.child(1).Value.Cancel == nil {
			t.Error("the part that runs was not told")
		}
		w.wantKept(k, 0)
	})
}

// A parent that is redriven waits for those that did not succeed, and for no others.
func TestRedriven(t *testing.T) {
	for _, heard := range []bool{true, false} {
		for _, rolling := range []int{0, 1} {
			bubble(t, func(_ *testing.T, w *world) {
				k := w.keep("k", nil)
				w.submit(parent(3, func(f *machine.Fan) { f.MaxParallel, f.Done = rolling, machine.GoalQuorum }))
				for i, how := range []machine.State{machine.Succeeded, machine.Failed, machine.Lost} {
					time.Sleep(moment)
					w.end(i, how)
				}
				time.Sleep(polled)
				w.wantEnded(machine.Failed, "1 of 3 parts succeeded, and 2 had to: n001 failed, n002 lost",
					machine.Tally{Succeeded: 1, Failed: 1, Lost: 1, Missed: []string{"n001", "n002"}})
				if heard {
					must(w.Redrive(w.Context(), "q.1"))(w)
				} else { // who did it has died at once
					w.change(w.get("q.1"), machine.Redriven{At: time.Now().UTC()})
					time.Sleep(11 * time.Second)
					k.Seen("q.1")
				}
				time.Sleep(moment)
				w.rumour("q.1", "n001", machine.Failed) // late
				time.Sleep(moment)
				w.wantWaiting()
				if rolling == 0 {
					w.wantOpen(1, 2)
				} else {
					w.wantOpen(1)
				}
				w.end(1, machine.Succeeded)
				time.Sleep(moment)
				w.end(2, machine.Failed)
				time.Sleep(moment)
				w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: 2, Failed: 1, Missed: []string{"n002"}})
			})
		}
	}
}

// A child that is redriven by itself counts as it ends then.
func TestRedrivenAlone(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(2, nil))
		time.Sleep(moment)
		w.end(0, machine.Failed)
		time.Sleep(moment)
		must(w.Redrive(w.Context(), w.child(0).Key))(w)
		w.end(1, machine.Succeeded)
		time.Sleep(moment)
		w.wantWaiting()
		w.wantOpen(0)
		w.end(0, machine.Succeeded)
		time.Sleep(moment)
		w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: 2})
	})
}

// A sharded job that succeeds has the results of all shards, in order.
func TestResults(t *testing.T) {
	large := `"` + strings.Repeat("x", 2*store.Inline) + `"`
	tests := map[string]struct {
		results []string
		want    string
	}{
		"small":   {[]string{`1`, `{"a":2}`, ``}, `[1,{"a":2},null]`},
		"large":   {[]string{`1`, large, large}, `[1,` + large + `,` + large + `]`},
		"a shard": {[]string{`"one"`}, `["one"]`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(_ *testing.T, w *world) {
				w.keep("k", nil)
				w.submit(parent(len(test.results), sharded))
				for i, result := range test.results {
					child := w.claim(i)
					done := machine.Done{Hold: machine.Hold{Token: child.Key, At: time.Now()}, Result: json.RawMessage(result)}
					_, _, err := w.Finish(w.Context(), child, child.Key, done)
					must(0, err)(w)
				}
				time.Sleep(moment)
				w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: len(test.results)})
				j := w.get("q.1").Value
				got := j.Result
				if j.ResultBlob != nil {
					got = must(w.Fetch(w.Context(), j.ResultBlob))(w)
				}
				if string(got) != test.want {
					t.Errorf("result has %d bytes, want %d: %.80s", len(got), len(test.want), got)
				}
			})
		})
	}
}

// A sharded job says which shard has failed.
func TestShardFails(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(3, sharded))
		time.Sleep(moment)
		w.end(1, machine.Failed)
		w.end(0, machine.Succeeded)
		w.end(2, machine.Succeeded)
		time.Sleep(moment)
		w.wantEnded(machine.Failed, "2 of 3 shards succeeded: shard 1 failed", machine.Tally{Succeeded: 2, Failed: 1, Missed: []string{"1"}})
	})
}

// The list of the parts is gone: nobody can tell who they were.
func TestSharesGone(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		k := w.keep("k", nil)
		j := parent(2, nil)
		j.Fan.Shares, j.Fan.SharesBlob = nil, &machine.Blob{Name: "q.1.123", Size: 100}
		must(w.jobs.Create(w.Context(), j.ID, j))(w)
		k.Seen(j.ID)
		time.Sleep(time.Minute)
		got := w.get("q.1").Value
		if got.State != machine.Failed || got.Error == nil || got.Error.Code != broadcast.CodeMissing {
			t.Errorf("it is %s: %v, want failed", got.State, got.Error)
		}
	})
}

// A live node that does not come for its part is asked to look, more and more rarely;
// one that is not there is not asked.
func TestAsksToLook(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		var looks atomic.Int64
		node := must(nodes.Join(w.Context(), w.pub, nodes.Options{
			Namespace: ns, ID: "n000", Lease: lease, Logger: quiet, Look: func() { looks.Add(1) },
		}))(w)
		w.loops(node.Run)
		w.submit(parent(2, nil))
		time.Sleep(moment)
		if n := looks.Load(); n != 0 {
			t.Errorf("asked %d times at once", n)
		}
		time.Sleep(3 * time.Second)
		if n := looks.Load(); n != 1 {
			t.Errorf("asked %d times after three seconds, want once", n)
		}
		time.Sleep(5 * time.Minute)
		before := looks.Load()
		if before < 5 || before > 20 {
			t.Errorf("asked %d times within five minutes", before)
		}
		w.claim(0)
		time.Sleep(5 * time.Minute)
		if n := looks.Load() - before; n > 0 {
			t.Errorf("asked %d times more while it runs", n)
		}
	})
}
