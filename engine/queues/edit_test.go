package queues_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/queues"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

const hour = spec.Duration(time.Hour)

// A definition is created, changed, left alone, and forgotten.
func TestApply(t *testing.T) {
	t.Parallel()
	p, ctx := started(t), t.Context()
	apply := func(doc spec.Queue, dry bool, want spec.Applied) {
		t.Helper()
		got, err := p.Apply(ctx, doc, dry)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	first := spec.Queue{Name: "a", Concurrency: 3}
	apply(first, true, spec.Applied{Key: "queue.a", Action: spec.Created})
	if _, err := p.Queues.Get(ctx, "a"); !errors.Is(err, queues.ErrNotFound) {
		t.Errorf("a dry run leaves something behind: %v", err)
	}
	apply(first, false, spec.Applied{Key: "queue.a", Action: spec.Created})
	if got := p.of("a"); got != 3 {
		t.Errorf("the consumer has a limit of %d, want 3", got)
	}
	apply(first, false, spec.Applied{Key: "queue.a", Action: spec.Unchanged})
	second := spec.Queue{Name: "a", Retention: spec.Retention{Failed: hour}}
	changes := []spec.Change{{Field: "concurrency", Old: "3"}, {Field: "retention.failed", New: "1h"}}
	apply(second, true, spec.Applied{Key: "queue.a", Action: spec.Changed, Changes: changes})
	if got := p.of("a"); got != 3 {
		t.Errorf("a dry run left the consumer with a limit of %d, want 3", got)
	}
	apply(second, false, spec.Applied{Key: "queue.a", Action: spec.Changed, Changes: changes})
	if got := p.of("a"); got != 0 {
		t.Errorf("the consumer has a limit of %d, want none", got)
	}
	apply(spec.Queue{Name: "b"}, false, spec.Applied{Key: "queue.b", Action: spec.Created})

	want := map[string]queues.Definition{"a": {Queue: second}, "b": {Queue: spec.Queue{Name: "b"}}}
	if d := cmp.Diff(want, must(p.List(ctx))(t)); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	if err := p.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := p.Delete(ctx, "a"); !errors.Is(err, queues.ErrNotFound) {
		t.Errorf("deleted again: %v", err)
	}
	apply(first, false, spec.Applied{Key: "queue.a", Action: spec.Created})
	if err := p.Delete(ctx, "a"); err != nil || p.of("a") != 0 {
		t.Errorf("deleted: %v, and the consumer has a limit of %d", err, p.of("a"))
	}
}

// What applying a file does not say about the pause, it leaves.
func TestApplyKeepsPause(t *testing.T) {
	t.Parallel()
	p, ctx := started(t), t.Context()
	paused := func(want bool) {
		t.Helper()
		if got := must(p.Queues.Get(ctx, "a"))(t); got.IsPaused() != want {
			t.Errorf("paused is %v, want %v", got.IsPaused(), want)
		}
	}
	must(p.Pause(ctx, "a"))(t)
	must(p.Apply(ctx, spec.Queue{Name: "a", Concurrency: 2}, false))(t)
	paused(true)
	must(p.Apply(ctx, spec.Queue{Name: "a", Paused: new(false)}, false))(t)
	paused(false)
	must(p.Apply(ctx, spec.Queue{Name: "a", Paused: new(true)}, false))(t)
	paused(true)
	must(p.Resume(ctx, "a"))(t)
	paused(false)
}

// Limits that are not given stay, and 0 is the default.
func TestLimit(t *testing.T) {
	t.Parallel()
	p, ctx := started(t), t.Context()
	limit := func(l queues.Limits, want spec.Queue) {
		t.Helper()
		if d := cmp.Diff(want, must(p.Limit(ctx, "a", l))(t)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if got := p.of("a"); got != want.Concurrency {
			t.Errorf("the consumer has a limit of %d, want %d", got, want.Concurrency)
		}
	}
	limit(queues.Limits{Concurrency: new(4)}, spec.Queue{Name: "a", Concurrency: 4})
	limit(queues.Limits{Succeeded: new(hour), Cancelled: new(2 * hour)},
		spec.Queue{Name: "a", Concurrency: 4, Retention: spec.Retention{Succeeded: hour, Cancelled: 2 * hour}})
	limit(queues.Limits{Concurrency: new(0), Succeeded: new(spec.Duration(0))},
		spec.Queue{Name: "a", Retention: spec.Retention{Cancelled: 2 * hour}})

	for _, bad := range []queues.Limits{{Concurrency: new(-1)}, {Failed: new(spec.Duration(time.Minute))}} {
		if _, err := p.Limit(ctx, "a", bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if _, err := p.Limit(ctx, "a.b", queues.Limits{}); err == nil {
		t.Error("a queue that cannot be is taken")
	}
}

// Many who change one definition at once all get their way, each with its own
// field, and the consumer ends as the definition says.
func TestEditorsAtOnce(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	shared := join(t, natstest.Connect(t, srv)).shapes
	var wg sync.WaitGroup
	for n := 1; n <= 4; n++ {
		p := join(t, natstest.Connect(t, srv))
		p.Queues = queues.Open(p.pub, queues.Options{Namespace: ns, Shape: shared.shape, Logger: quiet})
		wg.Go(func() {
			for i := range 5 {
				must(p.Limit(t.Context(), "a", queues.Limits{Concurrency: new(10*n + i)}))(t)
			}
			l := queues.Limits{}
			*[]**spec.Duration{&l.Succeeded, &l.Failed, &l.Cancelled, new(*spec.Duration)}[n-1] = new(spec.Duration(n) * hour)
			must(p.Limit(t.Context(), "a", l))(t)
		})
	}
	wg.Wait()
	got := must(join(t, natstest.Connect(t, srv)).Queues.Get(t.Context(), "a"))(t)
	if d := cmp.Diff(spec.Retention{Succeeded: hour, Failed: 2 * hour, Cancelled: 3 * hour}, got.Retention); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got.Concurrency%10 != 4 || shared.of("a") != got.Concurrency {
		t.Errorf("the definition says %d, and the consumer has %d", got.Concurrency, shared.of("a"))
	}
}

// Whoever shapes a consumer by a definition that another one replaces meanwhile
// shapes it again.
func TestServeByTheLatest(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	slow, quick := join(t, natstest.Connect(t, srv)), join(t, natstest.Connect(t, srv))
	slow.before = func(queue string) {
		slow.before = nil
		must(quick.Limit(t.Context(), queue, queues.Limits{Concurrency: new(5)}))(t)
	}
	must(slow.Limit(t.Context(), "a", queues.Limits{Concurrency: new(3)}))(t)
	if got := slow.of("a"); got != 5 {
		t.Errorf("the last who shaped the consumer gave it a limit of %d, want 5", got)
	}
}

// A consumer that cannot be shaped leaves the definition stored, and says so.
func TestShapeFails(t *testing.T) {
	t.Parallel()
	p, ctx := started(t), t.Context()
	q := queues.Open(p.pub, queues.Options{Namespace: ns, Logger: quiet, Shape: func(context.Context, string, int) error {
		return errors.New("no permission")
	}})
	_, err := q.Limit(ctx, "a", queues.Limits{Concurrency: new(3)})
	if err == nil || !strings.Contains(err.Error(), "the definition is stored") || !strings.HasSuffix(err.Error(), "no permission") {
		t.Errorf("got %v", err)
	}
	if d := must(q.Get(ctx, "a"))(t); d.Concurrency != 3 {
		t.Errorf("stored is %+v", d)
	}
	must(q.Pause(ctx, "b"))(t) // has no need of a consumer
}

// What people put there by hand is read if it can be. What cannot be read is shown
// and can be replaced and deleted, but is no ground for a change.
func TestByHand(t *testing.T) {
	t.Parallel()
	p, ctx := started(t), t.Context()
	put := func(queue, text string) {
		t.Helper()
		must(raw(p.pub).Create(ctx, "queue."+queue, []byte(text)))(t)
	}
	put("good", `{"name": "good", "concurrency": 2, "paused": true}`)
	put("bad", `{"name": "bad", "concurrency": "two"}`)
	put("other", `{"name": "another"}`)
	put("short", `{"kind": "Queue", "name": "short", "retention": {"failed": "1m"}}`)
	if got := must(p.Pause(ctx, "good"))(t); got.Concurrency != 2 {
		t.Errorf("got %+v", got)
	}
	all := must(p.List(ctx))(t)
	for queue, want := range map[string]string{
		"bad": "it is no queue in JSON", "other": `its name is "another"`, "short": "no retention is shorter",
	} {
		if got := all[queue].Problem; got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("%s: got %v, want %s", queue, got, want)
		}
		if _, err := p.Pause(ctx, queue); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pause %s: got %v, want %s", queue, err, want)
		}
		if err := p.Serve(ctx, queue); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("serve %s: got %v, want %s", queue, err, want)
		}
	}
	if got := must(p.Apply(ctx, spec.Queue{Name: "bad"}, false))(t); got.Action != spec.Changed {
		t.Errorf("replaced: %+v", got)
	}
	must(p.Pause(ctx, "bad"))(t)
	if err := p.Delete(ctx, "other"); err != nil {
		t.Error(err)
	}
}

// Whatever becomes of the write of a definition, it is stored once the change
// returns, and the consumer is as it says; a change that is made again after the
// process died does the rest.
func TestWriteFaults(t *testing.T) {
	change := map[string]func(context.Context, *process) error{
		"create": func(ctx context.Context, p *process) error {
			_, err := p.Limit(ctx, "new", queues.Limits{Concurrency: new(3)})
			return err
		},
		"edit": func(ctx context.Context, p *process) error {
			_, err := p.Limit(ctx, "old", queues.Limits{Concurrency: new(3)})
			return err
		},
		"delete": func(ctx context.Context, p *process) error {
			if err := p.Delete(ctx, "old"); !errors.Is(err, queues.ErrNotFound) {
				return err
			}
			return p.Serve(ctx, "old")
		},
	}
	for name, change := range change {
		for _, fault := range []natstest.Fault{
			natstest.CutBefore, natstest.CutAfter, natstest.LoseAnswer, natstest.Hold, natstest.DownBefore, natstest.DownAfter,
		} {
			t.Run(name+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
					must(editor.Limit(t.Context(), "old", queues.Limits{Concurrency: new(7)}))(t)
					link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
						if w.Number == 1 {
							return fault
						}
						return natstest.Pass
					}, configWrites)
					p := join(t, link.Connect(t))
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					err := change(ctx, p)
					if err != nil {
						link.Up()
						link.Release()
						time.Sleep(time.Minute)
						err = change(t.Context(), p)
					}
					if err != nil {
						t.Fatal(err)
					}
					link.Release()
					time.Sleep(time.Minute)
					for queue, want := range map[string]int{"new": 3, "old": 3} {
						got := must(editor.Concurrency(t.Context(), queue))(t)
						switch {
						case name == "create" && queue == "old" || name == "edit" && queue == "new":
							continue
						case name == "delete":
							want = 0
						}
						if got != want || p.of(queue) != want {
							t.Errorf("queue %s has a limit of %d, and its consumer %d, want %d", queue, got, p.of(queue), want)
						}
					}
				})
			})
		}
	}
}

// Whatever is stored under the key of a queue is read, or has a problem that is
// told, and then it says nothing.
func FuzzStored(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"kind":"Queue","name":"a"}`, `{"name":"a","concurrency":-1}`, `{"name":"a","retention":{"failed":"1d"}}`,
		`{"name":"a","paused":null,"retention":null}`, `[]`, `{"name":"a","retention":{"failed":9}}`, "\xff",
	} {
		f.Add([]byte(s), "queue/1")
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, data []byte, kind string) {
		d := queues.ReadStored(data, kind)
		switch {
		case d.Problem == nil && d.Name != "a":
			t.Errorf("taken under another name: %+v", d)
		case d.Problem == nil && d.Validate() != nil:
			t.Errorf("taken and not valid: %+v", d)
		case d.Problem != nil && len(spec.Diff(spec.Queue{Name: "a"}, d.Queue)) > 0:
			t.Errorf("%v, and it says %+v", d.Problem, d.Queue)
		}
		if _, err := json.Marshal(d.Queue); err != nil {
			t.Error(err)
		}
	})
}
