package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// The list has the most recently changed job first, of one state, queue and kind
// if that is asked for.
func TestList(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		submit(t, p.Engine, "a.one", 3)
		submit(t, p.Engine, "b.two", 2)
		if _, err := p.Submit(t.Context(), "b.three", nil, engine.SubmitOptions{ID: "3", Queue: "a-other"}); err != nil {
			t.Fatal(err)
		}
		p.run(engine.WorkerOptions{Slots: 1}, napping("b.two", newLedger()))
		ended(t, p.Engine, "b.2", "succeeded", 1, 0)
		synctest.Wait()
		if _, err := p.Cancel(t.Context(), "a.2"); err != nil {
			t.Fatal(err)
		}
		for want, o := range map[string]engine.ListOptions{
			"a.2 b.2 b.1 a-other.3 a.3 a.1": {},
			"a.2 b.2":                       {Limit: 2},
			"a.2 a.3 a.1":                   {Queue: "a"},
			"b.2 b.1":                       {State: "succeeded"},
			"a.2":                           {State: "cancelled", Queue: "a", Kind: "a.one"},
			"a-other.3":                     {Kind: "b.three"},
			"":                              {Queue: "none"},
		} {
			list, err := p.List(t.Context(), o)
			var ids []string
			for _, j := range list {
				ids = append(ids, j.ID)
			}
			if got := strings.Join(ids, " "); err != nil || sorted(got) != sorted(want) || !strings.HasPrefix(got, strings.SplitN(want, " ", 2)[0]) {
				t.Errorf("%+v lists %s, %v, want %s", o, got, err, want)
			}
			for i := range list[:max(len(list), 1)-1] {
				if list[i].Revision < list[i+1].Revision {
					t.Errorf("%+v lists %s, not the most recent first", o, ids)
				}
			}
		}
		_, err := p.List(t.Context(), engine.ListOptions{State: "asleep"})
		refused(t, err, `there is no state "asleep": use scheduled, pending, running`)
		_, err = p.List(t.Context(), engine.ListOptions{Queue: "a.b"})
		refused(t, err, `queue "a.b"`)
		_, err = p.List(t.Context(), engine.ListOptions{Limit: -1})
		refused(t, err, "limit is -1")
	})
}

// sorted returns words in the order of the alphabet.
func sorted(words string) string {
	list := strings.Fields(words)
	slices.Sort(list)
	return strings.Join(list, " ")
}

// Whoever watches hears of what is there and then of every change, over broken
// connections too.
func TestWatch(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b := start(t, srv, "a", nil), start(t, srv, "b", nil)
		submit(t, a.Engine, "job", 1)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		var seen []string
		watching.Go(func() {
			err := b.Watch(ctx, engine.ListOptions{Queue: "job"}, func(j engine.JobInfo) { seen = append(seen, j.State) })
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		time.Sleep(time.Second) // it has begun
		submit(t, a.Engine, "other", 1)
		b.link.Cut()
		a.run(engine.WorkerOptions{}, napping("job", newLedger()))
		ended(t, a.Engine, "job.1", "succeeded", 1, 0)
		time.Sleep(time.Minute)
		cancel()
		watching.Wait()
		if n := len(seen); n < 2 || seen[0] != "pending" || seen[n-1] != "succeeded" || slices.Contains(seen[:n-1], "succeeded") {
			t.Errorf("saw %v", seen)
		}
		if err := a.Watch(t.Context(), engine.ListOptions{State: "asleep"}, nil); err == nil {
			t.Error("a state that does not exist is watched")
		}
	})
}

// The JSON of a job has every field of its contract, null where nothing is.
func TestInfoJSON(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		if _, err := p.Submit(t.Context(), "job.one", json.RawMessage(`{"n":1}`), engine.SubmitOptions{ID: "1", MaxAttempts: 2}); err != nil {
			t.Fatal(err)
		}
		fields := func() map[string]string {
			t.Helper()
			info, err := p.Get(t.Context(), "job.1")
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(info)
			if err != nil {
				t.Fatal(err)
			}
			var raw map[string]json.RawMessage
			if err := json.Unmarshal(data, &raw); err != nil {
				t.Fatal(err)
			}
			text := map[string]string{}
			for key, value := range raw {
				text[key] = string(value)
			}
			return text
		}
		want := map[string]string{
			"id": `"job.1"`, "kind": `"job.one"`, "queue": `"job"`, "state": `"pending"`, "class": `"normal"`, "attempt": "0", "failures": "0", "max_attempts": "2",
			"node": "null", "fence": "0", "input": `{"n":1}`, "result": "null", "input_blob": "null", "result_blob": "null", "unique": "null", "error": "null", "progress": "null", "details": "null", "wait": "null", "parent": "null", "part": "null", "pin": "null", "children": "null",
			"created_at": `"2000-01-01T00:00:00Z"`, "started_at": "null", "finished_at": "null", "due_at": "null", "next_attempt_at": "null", "schedule": "null", "tick": "null", "start_by": "null", "deadline": "null", "revision": "1", "attempts": "[]",
		}
		if d := cmp.Diff(want, fields()); d != "" {
			t.Errorf("pending (-want +got):\n%s", d)
		}
		p.run(engine.WorkerOptions{}, engine.NewJob("job.one", func(context.Context, any) (any, error) {
			time.Sleep(1500 * time.Millisecond)
			return nil, errors.New("boom")
		}, engine.JobOptions{Retry: engine.Retry{Delay: time.Minute, Jitter: -1}}))
		ended(t, p.Engine, "job.1", "failed", 2, 2)
		for key, value := range map[string]string{
			"state": `"failed"`, "attempt": "2", "failures": "2", "node": `"a"`, "fence": "3", "error": `{"message":"boom"}`, "revision": "5",
			"started_at": `"2000-01-01T00:01:01.5Z"`, "finished_at": `"2000-01-01T00:01:03Z"`,
			"attempts": `[{"number":1,"node":"a","started_at":"2000-01-01T00:00:00Z","ended_at":"2000-01-01T00:00:01.5Z","outcome":"failed","error":{"message":"boom"}},` +
				`{"number":2,"node":"a","started_at":"2000-01-01T00:01:01.5Z","ended_at":"2000-01-01T00:01:03Z","outcome":"failed","error":{"message":"boom"}}]`,
		} {
			want[key] = value
		}
		if d := cmp.Diff(want, fields()); d != "" {
			t.Errorf("failed (-want +got):\n%s", d)
		}
	})
}
