package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// A job is created and offered, and runs once, whatever happens to the write of
// its record or of its item.
func TestSubmitFaults(t *testing.T) {
	for _, filter := range []string{jobWrites, workWrites} {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.process("a")
					p.fail(filter, fault)
					submitted := p.submit(job("1"))
					entry, d := p.start("t1")
					if entry.Value.Fence != submitted.Revision {
						t.Errorf("submitted as revision %d, claimed at %d", submitted.Revision, entry.Value.Fence)
					}
					p.link.Release()
					if fate := p.finish(entry, "t1", done("t1"), d); fate != store.Accepted {
						t.Errorf("the outcome is %s", fate)
					}
					p.settle()
					w.want("q.1", machine.Succeeded, 1, 0)
					w.wantItems("q.1", 0)
				})
			})
		}
	}
}

// The submitter dies between record and item. Whoever submits the job again
// finds it there, and offers it.
func TestSubmitAfterCrash(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.fail(workWrites, natstest.DownBefore)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, _, err := a.Submit(ctx, job("1")); err == nil {
			t.Error("a submitter without a server was told that its job is offered")
		}
		w.want("q.1", machine.Pending, 0, 0)
		w.wantItems("q.1", 0)
		entry, created, err := b.Submit(t.Context(), job("1"))
		if err != nil || created || entry.Revision != w.get("q.1").Revision {
			t.Errorf("got revision %d, created %v, %v", entry.Revision, created, err)
		}
		w.wantItems("q.1", 1)
		b.start("t1")
	})
}

// Submitting an ID again attaches to the job that is there, wherever it stands,
// and starts nothing.
func TestSubmitAttaches(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		attach := func(state machine.State, items uint64) {
			t.Helper()
			before := w.get("q.1")
			j := job("1")
			j.Kind = "q.other" // the caller finds out
			entry, created, err := p.Submit(t.Context(), j)
			if err != nil || created || entry.Value.State != state || entry.Value.Kind != "q.k" || entry.Revision != before.Revision {
				t.Errorf("got %s %s, created %v, %v; want the job that is %s", entry.Value.State, entry.Value.Kind, created, err, state)
			}
			w.wantItems("q.1", items)
		}
		p.submit(job("1"))
		for range 3 {
			attach(machine.Pending, 1)
		}
		entry, d := p.start("t1")
		attach(machine.Running, 1)
		p.finish(entry, "t1", done("t1"), d)
		attach(machine.Succeeded, 0)
	})
}

// Two who submit one ID at once make one job, and one of them made it.
func TestSubmitTwice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		made := make(chan bool)
		for _, p := range []*process{w.process("a"), w.process("b")} {
			w.loop(func(ctx context.Context) error {
				_, created, err := p.Submit(ctx, job("1"))
				made <- created
				return err
			})
		}
		if first, second := <-made, <-made; first == second {
			t.Errorf("both were told created %v", first)
		}
	})
}

// What is not sent is not there, and the submitter knows at once.
func TestSubmitWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.link.Down()
		time.Sleep(time.Second)
		began := time.Now()
		if _, _, err := p.Submit(t.Context(), job("1")); !errors.Is(err, publish.ErrUnsent) || time.Since(began) > 0 {
			t.Errorf("got %v after %v, want not sent, at once", err, time.Since(began))
		}
	})
}

// A create whose answer was lost is settled when NATS is back.
func TestSubmitThenAway(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.fail(jobWrites, fault)
				time.AfterFunc(5*time.Minute, p.link.Up)
				p.submit(job("1"))
				w.want("q.1", machine.Pending, 0, 0)
				w.wantItems("q.1", 1)
			})
		})
	}
}

// What the server refuses is an error, and nothing stays.
func TestSubmitRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		large := job("1")
		large.Trace = map[string]string{"tracestate": strings.Repeat("x", 2<<20)}
		if _, _, err := p.Submit(t.Context(), large); !errors.Is(err, nats.ErrMaxPayload) {
			t.Errorf("got %v", err)
		}
		if _, err := w.jobs.Get(t.Context(), "q.1"); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("the record reads %v", err)
		}
	})
}

// An ID under which lies what this build cannot read is refused.
func TestSubmitOfUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		raw := kv.Open(w.pub, ns.Bucket(streams.Jobs), kv.JSON[string]())
		must(raw.Create(t.Context(), "q.1", "of a newer build"))(t)
		if _, _, err := p.Submit(t.Context(), job("1")); !errors.Is(err, store.ErrUnreadable) {
			t.Errorf("got %v", err)
		}
	})
}

// A job that was removed by a user leaves a marker, and its ID is free.
func TestSubmitOverMarker(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		entry := p.submit(job("1"))
		if err := w.jobs.Delete(t.Context(), "q.1", entry.Revision); err != nil {
			t.Fatal(err)
		}
		p.submit(job("1"))
		if entry, _ := p.start("t1"); entry.Value.Attempt != 1 {
			t.Errorf("attempt %d runs", entry.Value.Attempt)
		}
		p.settle()
	})
}
