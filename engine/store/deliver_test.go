package store_test

import (
	"math"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// The rows of the delivery table of docs/how-it-works.md, in its order.

// No record: the item is acknowledged.
func TestDeliverOfNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("gone"))
		w.remove("q.gone")
		if _, ok := p.deliver(p.take(), "t1"); ok {
			t.Error("a job without a record runs")
		}
		w.wantItems("q.gone", 0)
		if p.Runs("q.gone", "t1") {
			t.Error("the node answers for a job that it does not run")
		}
	})
}

// Terminal: what it owes is carried out, and the item is acknowledged.
func TestDeliverOfEnded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		for local, end := range map[string][]machine.Event{
			"succeeded": {claimed("b", 1, "t"), done("t")},
			"failed":    {claimed("b", 1, "t"), machine.Erred{Hold: hold("t"), Final: true}},
			"cancelled": {machine.Stopped{Cause: "asked", At: time.Now()}},
		} {
			id := "q." + local
			p.submit(job(local))
			before := w.change(id, end...)
			heard := w.heard(id)
			if entry, ok := p.deliver(p.take(), "t1"); ok {
				t.Errorf("%s runs: %+v", id, entry.Value)
			}
			w.wantItems(id, 0)
			if n := heard(); n != 1 {
				t.Errorf("the end of %s was announced %d times, want once", id, n)
			}
			if after := w.get(id); after.Revision != before.Revision {
				t.Errorf("%s was written to", id)
			}
		}
	})
}

// Pending, at the revision that the item has: claimed without reading.
func TestDeliverOfPending(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.kinds["q.k"] = 3
		submitted := p.submit(job("1"))
		entry, d := p.start("t1")
		w.want("q.1", machine.Running, 1, 0)
		stored := w.get("q.1")
		node, incarnation := p.Identity()
		want := machine.Lease{Node: node, Incarnation: incarnation, Token: "t1", Driver: machine.Driver{Stream: ns.WorkStream(), Sequence: d.Sequence}}
		if *stored.Value.Lease != want {
			t.Errorf("the lease is %+v, want %+v", *stored.Value.Lease, want)
		}
		if entry.Revision != stored.Revision || entry.Value.Fence != submitted.Revision || stored.Value.Fence != submitted.Revision {
			t.Errorf("got revision %d and fence %d, want %d and %d", entry.Revision, entry.Value.Fence, stored.Revision, submitted.Revision)
		}
		if stored.Value.MaxAttempts != 3 {
			t.Errorf("the claim settled %d attempts, want 3, as the handler says", stored.Value.MaxAttempts)
		}
		w.wantItems("q.1", 1)
	})
}

// Pending, at another revision than the item's: claimed all the same.
func TestDeliverOfStaleItem(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		first := p.submit(job("1"))
		moved := w.change("q.1", claimed("b", 1, "t"), machine.Returned{Hold: hold("t")})
		entry, d := p.start("t1")
		if d.Revision != first.Revision || entry.Value.Fence != moved.Revision {
			t.Errorf("item of revision %d led to fence %d, want %d and %d", d.Revision, entry.Value.Fence, first.Revision, moved.Revision)
		}
		w.want("q.1", machine.Running, 2, 0)
		w.wantOutcomes("q.1", machine.AttemptReturned, "")
	})
}

// The job was removed, and its ID is another job's now: that one is claimed.
func TestDeliverOfReusedID(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		d := p.take()
		w.remove("q.1")
		second := p.submit(job("1"))
		if entry, ok := p.deliver(d, "t1"); !ok || entry.Value.Fence != second.Revision {
			t.Errorf("got %+v, runs %v, want the second job running", entry.Value, ok)
		}
	})
}

// Running here, under my token: a redelivery of the driver is adopted, and its
// acknowledgement frees the message; any other item is acknowledged.
func TestDeliverOfMine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		submitted := p.submit(job("1"))
		entry, first := p.start("t1")

		second := p.take() // after the acknowledgement wait
		if second.Sequence != first.Sequence {
			t.Fatalf("got item %d, want %d again", second.Sequence, first.Sequence)
		}
		if _, ok := p.deliver(second, "t2"); ok || p.adopted["t1"] != second {
			t.Errorf("a redelivery of the driver: runs %v, adopted %v, want adopted", ok, p.adopted["t1"] == second)
		}
		w.wantItems("q.1", 1)

		p.again(submitted)
		third := p.take()
		if _, ok := p.deliver(third, "t3"); ok || p.adopted["t1"] != second {
			t.Errorf("another item: runs %v, adopted %v, want dropped", ok, p.adopted["t1"] != second)
		}
		w.wantItems("q.1", 1)

		if fate := p.finish(entry, "t1", done("t1"), second); fate != store.Accepted {
			t.Errorf("the outcome is %s", fate)
		}
		w.wantItems("q.1", 0)
		w.want("q.1", machine.Succeeded, 1, 0)
	})
}

// Running under my node and incarnation, and I do not run it: the answer to the
// claim was lost. It is the same attempt under a new token.
func TestDeliverOfLostClaim(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		lost, _ := p.start("t1")
		p.forget("t1")
		entry, ok := p.deliver(p.take(), "t2")
		if !ok || !entry.Value.Held("t2") || entry.Value.Fence != lost.Revision {
			t.Errorf("got %+v, runs %v, want it to run under the new token", entry.Value, ok)
		}
		w.want("q.1", machine.Running, 1, 0)
		w.wantOutcomes("q.1", "")
	})
}

// The same with a cancel: the job ends.
func TestDeliverOfLostClaimWithCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		p.start("t1")
		p.forget("t1")
		w.change("q.1", machine.Stopped{Cause: "asked", At: time.Now()})
		heard := w.heard("q.1")
		if _, ok := p.deliver(p.take(), "t2"); ok {
			t.Error("a cancelled job runs again")
		}
		w.want("q.1", machine.Cancelled, 1, 0)
		w.wantOutcomes("q.1", machine.AttemptCancelled)
		w.wantItems("q.1", 0)
		if heard() != 1 || p.Runs("q.1", "t2") {
			t.Errorf("announced %d times, still runs %v", heard(), p.Runs("q.1", "t2"))
		}
	})
}

// Running elsewhere, and the node says yes: the driver comes back a little
// later, any other item is acknowledged.
func TestDeliverOfRunningElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		submitted := a.submit(job("1"))
		entry, first := a.start("t1")

		driver := b.take()
		if driver.Sequence != first.Sequence {
			t.Fatalf("got item %d, want %d again", driver.Sequence, first.Sequence)
		}
		b.deliver(driver, "t2")
		if d := b.takeWithin(lease/3 - time.Second/2); d != nil {
			t.Error("the driver came back at once, want it a little later")
		}
		b.deliver(b.take(), "t3")
		w.wantItems("q.1", 1)

		a.again(submitted)
		b.deliver(b.take(), "t4")
		w.wantItems("q.1", 1)
		w.want("q.1", machine.Running, 1, 0)

		if fate := a.finish(entry, "t1", done("t1"), first); fate != store.Accepted {
			t.Errorf("the outcome is %s", fate)
		}
		w.wantItems("q.1", 0)
	})
}

// Running elsewhere, and a later incarnation of the node says no: taken over,
// which counts as a failure.
func TestDeliverAfterRestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		a.start("t1")
		a.leave()
		a.forget("t1")
		a.join("a")
		entry, ok := b.deliver(b.take(), "t2")
		if !ok || entry.Value.Lease.Node != "b" {
			t.Errorf("got %+v, runs %v, want it taken over", entry.Value, ok)
		}
		w.want("q.1", machine.Running, 2, 1)
		w.wantOutcomes("q.1", machine.AttemptLost, "")
	})
}

// An earlier incarnation of mine is somebody else, unless I still run the job.
func TestDeliverAfterMyRestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.process("a")
		a.submit(job("1"))
		a.start("t1")
		a.leave()
		a.join("a")
		d := a.take()
		if _, ok := a.deliver(d, "t2"); ok || a.adopted["t1"] != d {
			t.Error("the outcome is in hand, want the delivery adopted")
		}
		a.forget("t1")
		if _, ok := a.deliver(a.take(), "t3"); !ok {
			t.Error("nobody runs the job, want it taken over")
		}
		w.want("q.1", machine.Running, 2, 1)
	})
}

// Running elsewhere, and the very incarnation that claimed says no: taken over
// without a failure.
func TestDeliverOfLostClaimElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		a.start("t1")
		a.forget("t1")
		if _, ok := b.deliver(b.take(), "t2"); !ok {
			t.Error("the job does not run, want it taken over")
		}
		w.want("q.1", machine.Running, 2, 0)
		w.wantOutcomes("q.1", machine.AttemptLost, "")
	})
}

// Running elsewhere, and nobody answers. Without a verdict the item comes back;
// with one the job is taken over.
func TestDeliverAfterDeath(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		a.start("t1")
		a.crash()
		time.Sleep(longGone) // the key is gone, and there is no owner
		if _, ok := b.deliver(b.take(), "t2"); ok {
			t.Fatal("a job was taken over without a verdict")
		}
		w.wantItems("q.1", 1)
		w.want("q.1", machine.Running, 1, 0)

		w.serve()
		time.Sleep(longGone)
		if _, ok := b.deliver(b.take(), "t3"); !ok {
			t.Error("the node is dead, want its job taken over")
		}
		w.want("q.1", machine.Running, 2, 1)
		if e := w.get("q.1").Value.Error; e == nil || e.Code != "node_lost" {
			t.Errorf("the error is %+v, want node_lost", e)
		}
	})
}

// A take-over of a job with a cancel ends it as cancelled, one of a job without
// failures left as failed.
func TestTakeOverEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		last := job("last")
		last.MaxAttempts = 1
		a.submit(job("unwanted"))
		a.submit(last)
		a.start("t1")
		a.start("t2")
		w.change("q.unwanted", machine.Stopped{Cause: "asked", At: time.Now()})
		a.crash()
		time.Sleep(longGone)
		heard := []func() int{w.heard("q.unwanted"), w.heard("q.last")}
		for range 2 {
			if entry, ok := b.deliver(b.take(), "t3"); ok {
				t.Errorf("%s runs", entry.Key)
			}
		}
		w.want("q.unwanted", machine.Cancelled, 1, 0)
		w.want("q.last", machine.Failed, 1, 1)
		for i, id := range []string{"q.unwanted", "q.last"} {
			w.wantItems(id, 0)
			w.wantOutcomes(id, machine.AttemptLost)
			if heard[i]() != 1 {
				t.Errorf("the end of %s was announced %d times", id, heard[i]())
			}
		}
	})
}

// A worker without the kind settles a job that has ended.
func TestDeliverOfMissingKindEnded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		delete(p.kinds, "q.k")
		p.submit(job("1"))
		w.change("q.1", machine.Stopped{Cause: "asked", At: time.Now()})
		p.deliver(p.take(), "t1")
		w.wantItems("q.1", 0)
	})
}

// An item whose record cannot be decoded leads to the job that is stored.
func TestDeliverOfUndecodableItem(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		for local, record := range map[string]string{
			"broken":  `{`,
			"other":   `{"id":"q.another","kind":"q.k","state":"pending"}`,
			"running": `{"id":"q.running","kind":"q.k","state":"running"}`,
		} {
			id := "q." + local
			entry := w.create(job(local))
			offer := streams.Item{Queue: "q", Local: local, Record: []byte(record), Revision: entry.Revision}
			if err := p.work.Offer(t.Context(), offer); err != nil {
				t.Fatal(err)
			}
			p.start("t-" + local)
			w.want(id, machine.Running, 1, 0)
		}
	})
}

// A record that cannot be decoded, or is in a state that only a newer build
// knows, is left alone, and so is its item.
func TestDeliverOfUndecodableRecord(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		raw := kv.Open(w.pub, ns.Bucket(streams.Jobs), kv.JSON[map[string]any]())
		for _, local := range []string{"foreign", "newer"} {
			id := "q." + local
			entry := p.submit(job(local))
			var err error
			if local == "foreign" {
				_, err = raw.Update(t.Context(), id, map[string]any{"hello": "world"}, entry.Revision)
			} else {
				entry.Value.State = "hibernating"
				_, err = w.jobs.Update(t.Context(), id, entry.Value, entry.Revision)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := must(raw.Get(t.Context(), id))(t).Revision
			if _, ok, _ := p.Deliver(t.Context(), p.take(), "t1", p); ok {
				t.Errorf("%s runs", id)
			}
			if p.Runs(id, "t1") {
				t.Errorf("the node answers for %s", id)
			}
			w.wantItems(id, 1)
			if after := must(raw.Get(t.Context(), id))(t).Revision; after != before {
				t.Errorf("%s was written to", id)
			}
			if d := p.take(); d.Local != local { // it comes back
				t.Errorf("got %s, want %s", d.Local, local)
			}
			if err := p.work.Withdraw(t.Context(), "", "q", local, math.MaxUint64); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// claimed is the claim of an incarnation of a node, under a token.
func claimed(node string, incarnation uint64, token string) machine.Event {
	return machine.Claimed{Claimant: machine.Claimant{
		Lease: machine.Lease{Node: node, Incarnation: incarnation, Token: token}, At: time.Now().UTC(),
	}}
}

// create stores a job and does not offer it: its submitter died.
func (w *world) create(j machine.Job) store.Entry {
	w.Helper()
	must(w.jobs.Create(w.Context(), j.ID, j))(w)
	return w.get(j.ID)
}
