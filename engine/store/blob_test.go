package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// text returns n bytes of JSON.
func text(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }

// largeJob is a job whose input is not part of its record.
func largeJob(local string) machine.Job {
	j := job(local)
	j.Input = text(store.Inline + 1)
	return j
}

// objects returns how many blobs there are.
func (w *world) objects() (n int) {
	w.Helper()
	if err := blobs.Open(w.pub, ns).List(w.Context(), func(string) error { n++; return nil }); err != nil {
		w.Fatal(err)
	}
	return n
}

// wantObjects fails the test unless n blobs are there, and nothing else in their
// stream if that is none.
func (w *world) wantObjects(n int) {
	w.Helper()
	if got := w.objects(); got != n {
		w.Errorf("there are %d objects, want %d", got, n)
	}
	stream := must(w.js.Stream(w.Context(), ns.BlobStream()))(w)
	if msgs := stream.CachedInfo().State.Msgs; n == 0 && msgs != 0 {
		w.Errorf("%d messages are left of objects", msgs)
	}
}

// fetch reads the input or the result of a job, wherever it is.
func (p *process) fetch(inline []byte, b *machine.Blob) []byte {
	p.w.Helper()
	if b == nil {
		return inline
	}
	return must(p.Fetch(p.w.Context(), b))(p.w)
}

// Up to 32 KiB an input and a result are part of the record, and beyond they are
// objects. They are what they were, until the record goes, with them.
func TestLargeValues(t *testing.T) {
	for _, size := range []int{store.Inline, store.Inline + 1, 10 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				j := job("1")
				j.Input = text(size)
				p.submit(j)
				entry, d := p.start("t1")
				if got := p.fetch(entry.Value.Input, entry.Value.InputBlob); !bytes.Equal(got, j.Input) {
					t.Errorf("the input has %d bytes", len(got))
				}
				p.finish(entry, "t1", machine.Done{Hold: hold("t1"), Result: text(size)}, d)
				ended := w.get("q.1").Value
				if got := p.fetch(ended.Result, ended.ResultBlob); !bytes.Equal(got, text(size)) || ended.State != machine.Succeeded {
					t.Errorf("it is %s, the result has %d bytes", ended.State, len(got))
				}
				if size == store.Inline {
					w.wantObjects(0)
					return
				}
				w.wantObjects(2)
				expiry := p.timer("q.1", "expiry")
				if kept := expiry.At.Sub(ended.Finished); kept != 24*time.Hour {
					t.Errorf("it is kept for %v", kept)
				}
				if err := p.Fire(t.Context(), expiry); err != nil {
					t.Error(err)
				}
				if _, err := p.Get(t.Context(), "q.1"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("it is there: %v", err)
				}
				w.wantObjects(0)
			})
		})
	}
}

// Who attaches, is refused or comes too late deletes what it has stored.
func TestLargeDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, q := w.process("a"), w.process("b")
		p.submit(largeJob("1"))
		if _, created, err := q.Submit(t.Context(), largeJob("1")); created || err != nil {
			t.Errorf("created %v, %v", created, err)
		}
		w.wantObjects(1)

		entry, _ := p.start("t1")
		lease := machine.Lease{Node: "c", Incarnation: 1, Token: "t2", Driver: machine.Driver{Stream: "s", Sequence: 1}}
		w.change("q.1", machine.TakenOver{Claimant: machine.Claimant{Lease: lease, At: time.Now().UTC()}, LostClaim: true})
		_, fate, err := p.Finish(t.Context(), entry, "t1", machine.Done{Hold: hold("t1"), Result: text(store.Inline + 1)})
		if fate != store.Stale || err != nil {
			t.Errorf("the outcome is %s, %v, want stale", fate, err)
		}
		w.wantObjects(1)
	})
}

// A redrive drops the result, a delete all there is.
func TestLargeRedrivenAndDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(largeJob("1"))
		run := func(token string) {
			t.Helper()
			entry, d := p.start(token)
			p.finish(entry, token, machine.Done{Hold: hold(token), Result: text(store.Inline + 1)}, d)
			w.wantObjects(2)
		}
		run("t1")
		must(p.Redrive(t.Context(), "q.1"))(t)
		w.wantObjects(1)
		run("t2")
		if err := p.Delete(t.Context(), "q.1"); err != nil {
			t.Fatal(err)
		}
		w.wantObjects(0)
		w.wantTimers("q.1")
	})
}

// Whatever fails while an input or a result is stored, the job has one of each, and
// what else is there goes when it is an hour old.
func TestLargeFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore} {
		more := true
		for n := 1; more; n++ {
			t.Run(fmt.Sprint(fault, " ", n), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p, q := w.process("a"), w.process("b")
					p.failNth(n, fault)
					j := largeJob("1")
					if _, _, err := p.Submit(t.Context(), j); err != nil { // the connection was down
						time.Sleep(time.Second)
						must2(p.Submit(t.Context(), j))(t)
					}
					entry, _ := p.begin("t1")
					if got := p.fetch(entry.Value.Input, entry.Value.InputBlob); !bytes.Equal(got, j.Input) {
						t.Errorf("the input has %d bytes", len(got))
					}
					_, fate, err := p.Finish(t.Context(), entry, "t1", machine.Done{Hold: hold("t1"), Result: text(store.Inline + 2)})
					if fate != store.Accepted || err != nil {
						t.Errorf("the outcome is %s, %v", fate, err)
					}
					more = p.pending() == 0
					ended := w.get("q.1").Value
					if got := p.fetch(ended.Result, ended.ResultBlob); len(got) != store.Inline+2 {
						t.Errorf("the result has %d bytes", len(got))
					}
					p.leave()
					q.leave()
					time.Sleep(time.Hour)
					must(q.Sweep(t.Context()))(t)
					w.wantObjects(2)
				})
			})
		}
	}
}

// What nobody names is swept when it is an hour old, but for that of a job that goes
// on, and what is nobody's.
func TestSweep(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		put := func(blob string) {
			t.Helper()
			if err := blobs.Open(w.pub, ns).Put(t.Context(), blob, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		p.submit(largeJob("1"))               // named
		put(blobs.Name("q.1", time.Now()))    // of a job that goes on
		put(blobs.Name("q.gone", time.Now())) // of none
		put("somebody's")                     // not ours
		must(w.js.Publish(t.Context(), "$O.mr_default_blobs.C."+blobs.Name("q.half", time.Now()), []byte("x")))(t)
		p.leave()
		time.Sleep(59 * time.Minute)
		put(blobs.Name("q.young", time.Now()))
		if n := must(p.Sweep(t.Context()))(t); n != 0 {
			t.Errorf("swept %d objects that are young", n)
		}
		time.Sleep(time.Minute)
		if n := must(p.Sweep(t.Context()))(t); n != 2 {
			t.Errorf("swept %d objects, want 2", n)
		}
		must(p.Cancel(t.Context(), "q.1", "enough"))(t)
		if n := must(p.Sweep(t.Context()))(t); n != 1 {
			t.Errorf("swept %d objects, want 1", n)
		}
		w.wantObjects(3)
	})
}

// Whoever is away while it stores an outcome goes on when it is back, and whoever
// submits then is told so at once.
func TestLargeOutage(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(largeJob("1"))
		entry, d := p.start("t1")
		p.link.Down()
		time.AfterFunc(lease/3, p.link.Up)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := p.Submit(ctx, largeJob("2")); err == nil || ctx.Err() != nil {
			t.Errorf("submit: %v, %v", err, ctx.Err())
		}
		if fate := p.finish(entry, "t1", machine.Done{Hold: hold("t1"), Result: text(1 << 20)}, d); fate != store.Accepted {
			t.Errorf("the outcome is %s", fate)
		}
		w.wantObjects(2)
	})
}

// Storage that is nearly full takes no objects of new jobs, and still those of
// results.
func TestLargeFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		vast := func(local string) machine.Job {
			j := job(local)
			j.Input = text(1 << 20)
			return j
		}
		p.submit(vast("1"))
		stream := must(w.js.Stream(t.Context(), ns.BlobStream()))(t)
		config := stream.CachedInfo().Config
		config.MaxBytes = int64(stream.CachedInfo().State.Bytes) * 100 / 46
		must(w.js.UpdateStream(t.Context(), config))(t)
		p.submit(vast("2"))
		time.Sleep(2 * time.Second)
		if _, _, err := p.Submit(t.Context(), vast("3")); !errors.Is(err, streams.ErrFull) {
			t.Errorf("submit: got %v, want ErrFull", err)
		}
		w.wantObjects(2)
		entry, d := p.start("t1")
		if fate := p.finish(entry, "t1", machine.Done{Hold: hold("t1"), Result: text(store.Inline + 1)}, d); fate != store.Accepted {
			t.Errorf("the outcome is %s", fate)
		}
		w.wantObjects(3)
	})
}
