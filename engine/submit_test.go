package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// numbered yields n submissions with the IDs 1 to n.
func numbered(n int) iter.Seq[engine.Submission[int]] {
	return func(yield func(engine.Submission[int]) bool) {
		for i := range n {
			if !yield(engine.Submission[int]{Input: i, Options: engine.SubmitOptions{ID: fmt.Sprint(i + 1)}}) {
				return
			}
		}
	}
}

// every returns what happens to writes of which every nth has a fault.
func every(nth int, fault natstest.Fault) func(natstest.Write) natstest.Fault {
	return func(w natstest.Write) natstest.Fault {
		if w.Number%nth == 0 && w.Number < 10*nth {
			return fault
		}
		return natstest.Pass
	}
}

// Many jobs at once, with answers lost and connections cut in the middle: there
// is exactly one of each, each was created by the caller, and each runs once.
func TestSubmitMany(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.Pass, natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				const many = 150
				p, l := start(t, srv, "a", every(23, fault)), newLedger()
				job := engine.NewJob("job", func(ctx context.Context, in int) (int, error) {
					defer l.enter(ctx)()
					return in, nil
				})
				handles, err := job.SubmitMany(t.Context(), p.Engine, numbered(many))
				if err != nil {
					t.Fatal(err)
				}
				for i, h := range handles {
					if want := fmt.Sprintf("job.%d", i+1); h.ID != want || !h.Created {
						t.Errorf("handle %d is of %s, created %v; want %s, created", i, h.ID, h.Created, want)
					}
				}
				if n := jobs(t, p.nc); n != many {
					t.Errorf("%d jobs are there, want %d", n, many)
				}
				again, err := job.SubmitMany(t.Context(), p.Engine, numbered(many+1))
				if err != nil {
					t.Fatal(err)
				}
				for i, h := range again {
					if h.Created != (i == many) {
						t.Errorf("submitted again, %s was created: %v", h.ID, h.Created)
					}
				}
				p.link.Release()
				p.run(engine.WorkerOptions{Slots: 50}, job)
				for i, h := range handles {
					if out, err := h.Wait(t.Context()); err != nil || out != i || len(l.started(h.ID)) != 1 {
						t.Errorf("%s returned %d, %v, started on %v", h.ID, out, err, l.started(h.ID))
					}
				}
				time.Sleep(2 * p.Lease())
				if n := items(t, p.nc); n != 0 {
					t.Errorf("%d items are left", n)
				}
			})
		})
	}
}

// One of many whose ID belongs to a job of another kind is refused, as one alone
// is.
func TestSubmitOtherKind(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	submit(t, eng, "job.one", 1)
	other := engine.NewJob[int, int]("job.other", nil)
	const want = "there is a job of that ID and of kind job.one, not job.other"
	_, err := other.Submit(t.Context(), eng, 0, engine.SubmitOptions{ID: "1"})
	refused(t, err, want)
	_, err = other.SubmitMany(t.Context(), eng, numbered(3))
	refused(t, err, want)
}

// One ID twice among many is one job.
func TestSubmitManyTwice(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	job := engine.NewJob[int, int]("job", nil)
	twice := slices.Concat(slices.Collect(numbered(20)), slices.Collect(numbered(20)))
	handles, err := job.SubmitMany(t.Context(), eng, slices.Values(twice))
	if err != nil {
		t.Fatal(err)
	}
	created := map[string]int{}
	for _, h := range handles {
		if h.Created {
			created[h.ID]++
		}
	}
	for i := range 20 {
		if n := created[fmt.Sprintf("job.%d", i+1)]; n != 1 {
			t.Errorf("job %d was created %d times", i+1, n)
		}
	}
}

// An ID of its own makes a job new each time, and sorts by time.
func TestSubmitWithoutID(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	job := engine.NewJob[int, int]("job.one", nil, engine.JobOptions{Queue: "other", MaxAttempts: 7})
	var ids []string
	for range 10 {
		h, err := job.Submit(t.Context(), eng, 1)
		if err != nil || !h.Created {
			t.Fatalf("created %v, %v", h.Created, err)
		}
		ids = append(ids, h.ID)
		info, err := h.Get(t.Context())
		if err != nil || info.Queue != "other" || info.MaxAttempts != 7 || info.State != "pending" {
			t.Errorf("got %+v, %v", info, err)
		}
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 10 || !strings.HasPrefix(ids[0], "other.") {
		t.Errorf("the IDs are %v", ids)
	}
}

// What cannot be submitted is refused in one line, and nothing stays.
func TestSubmitRefused(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	large := json.RawMessage(`"` + strings.Repeat("x", engine.MaxValue) + `"`)
	for want, c := range map[string]struct {
		kind  string
		input json.RawMessage
		opts  engine.SubmitOptions
	}{
		`kind "a..b"`:                               {kind: "a..b"},
		`kind is empty`:                             {kind: ""},
		`ID "a.b" contains '.'`:                     {kind: "a", opts: engine.SubmitOptions{ID: "a.b"}},
		`ID "a=b" contains "="`:                     {kind: "a", opts: engine.SubmitOptions{ID: "a=b"}},
		`queue "a b" contains ' '`:                  {kind: "a", opts: engine.SubmitOptions{Queue: "a b"}},
		`max attempts is -1`:                        {kind: "a", opts: engine.SubmitOptions{MaxAttempts: -1}},
		`its input cannot be stored: it is no JSON`: {kind: "a", input: json.RawMessage(`{"a":`)},
		`and up to 67108864 are stored`:             {kind: "a", input: large},
		`there is both an ID and a unique key`:      {kind: "a", opts: engine.SubmitOptions{ID: "a", Unique: engine.Unique{Key: "k"}}},
		`without a unique key`:                      {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Scope: engine.WhileActive}}},
		`has the scope "ever"`:                      {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: "k", Scope: "ever"}}},
		`for a period of 0s`:                        {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: "k", Scope: engine.WithinPeriod}}},
		`for a period of -1s`:                       {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: "k", Period: -time.Second}}},
		`has a period, and the scope active`:        {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: "k", Scope: engine.WhileActive, Period: time.Hour}}},
		`the unique key has 1025 bytes`:             {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: strings.Repeat("k", 1025)}}},
		`"k\xff" is no UTF-8`:                       {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: "k\xff"}}},
		`up to 100 years`:                           {kind: "a", opts: engine.SubmitOptions{Unique: engine.Unique{Key: "k", Period: math.MaxInt64}}},
		`it is nested 9500 deep`:                    {kind: "a", input: json.RawMessage(strings.Repeat("[", 9500) + strings.Repeat("]", 9500))},
		`stored: it is no JSON: invalid character`:  {kind: "a", input: json.RawMessage("{\n\x00}")},
	} {
		_, err := eng.Submit(t.Context(), c.kind, c.input, c.opts)
		refused(t, err, want)
	}
	bad := engine.NewJob[int, int]("a", nil, engine.JobOptions{Queue: "a.b", MaxAttempts: -1, Timeout: -1})
	if _, err := bad.Submit(t.Context(), eng, 1); err == nil {
		t.Error("a bad definition was submitted")
	}
	unsound := engine.NewJob[func(), int]("a", nil)
	_, err := unsound.Submit(t.Context(), eng, nil)
	refused(t, err, "input does not become JSON")
	_, err = engine.NewJob[int, int]("a", nil).SubmitMany(t.Context(), eng, slices.Values([]engine.Submission[int]{
		{Options: engine.SubmitOptions{ID: "fine"}}, {Options: engine.SubmitOptions{ID: "a.b"}},
	}))
	refused(t, err, "job 1: ")
	if list, err := eng.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("there are %v, %v", list, err)
	}
}

// A submitter that is cut off is told so at once, and one whose context ends
// while it waits for answers when that happens.
func TestSubmitCutOff(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", func(w natstest.Write) natstest.Fault {
			if strings.HasSuffix(w.Subject, "job.late") {
				return natstest.DownAfter
			}
			return natstest.Pass
		})
		job := engine.NewJob[int, int]("job", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := job.Submit(ctx, p.Engine, 1, engine.SubmitOptions{ID: "late"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_, err := job.Submit(t.Context(), p.Engine, 1)
		refused(t, err, "not sent")
		_, err = job.SubmitMany(t.Context(), p.Engine, numbered(10))
		refused(t, err, "not sent")
		p.link.Up()
		handles, err := job.SubmitMany(t.Context(), p.Engine, numbered(0))
		if err != nil || len(handles) != 0 {
			t.Errorf("no jobs: got %v, %v", handles, err)
		}
	})
}

// The trace context of a submitter travels with its job.
func TestSubmitTrace(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng := connect(t, srv)
	trace := map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	if _, err := eng.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "1", Trace: trace}); err != nil {
		t.Fatal(err)
	}
	msg := lastOf(t, natstest.Connect(t, srv), "KV_mr_default_jobs", "$KV.mr_default_jobs.job.1")
	if got := msg.Header.Get("traceparent"); got != trace["traceparent"] {
		t.Errorf("the record carries %q", got)
	}
}
