package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
)

// faults are all that can happen to one write.
var faults = []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold}

// Whatever happens to the write of a claim, the job runs once, as attempt 1,
// and the node answers for it all the time.
func TestClaimFaults(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				submitted := p.submit(job("1"))
				p.fail(jobWrites, fault)
				entry, d := p.start("t1")
				if entry.Value.Fence != submitted.Revision {
					t.Errorf("the fence is %d, want %d", entry.Value.Fence, submitted.Revision)
				}
				if n := p.ends("t1"); n != 0 {
					t.Errorf("the node denied %d times what might still land", n)
				}
				p.link.Release() // what was held lands now
				if stored := w.get("q.1"); stored.Revision != entry.Revision {
					t.Errorf("the job is at revision %d, want %d", stored.Revision, entry.Revision)
				}
				w.want("q.1", machine.Running, 1, 0)
				if fate := p.finish(entry, "t1", done("t1"), d); fate != store.Accepted {
					t.Errorf("the outcome is %s", fate)
				}
				w.want("q.1", machine.Succeeded, 1, 0)
				w.wantItems("q.1", 0)
			})
		})
	}
}

// A claim lands after its time-out, so the one that was sent in its place is
// refused: the first is recognised by its token.
func TestClaimLandsLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		p.fail(jobWrites, natstest.Hold)
		p.fail(jobWrites, natstest.Hold)
		d := p.take()
		claimed := w.meanwhile(func() {
			if entry, ok := p.deliver(d, "t1"); !ok || !entry.Value.Held("t1") {
				t.Errorf("got %+v, runs %v", entry.Value, ok)
			}
		})
		time.Sleep(lease) // the first has timed out, the second waits for its answer
		p.link.Release()
		claimed()
		w.want("q.1", machine.Running, 1, 0)
		if n := len(p.writes(jobWrites)); n != 3 || p.ends("t1") != 0 {
			t.Errorf("%d writes, denied %d times, want 3 (create, claim, claim) and never", n, p.ends("t1"))
		}
	})
}

// A node that stood still has an item that others are done with. The job is pending
// again, by another item: nothing is claimed by the first.
func TestClaimByItemThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		stale := a.take()
		time.Sleep(lease + time.Second) // the item comes back
		entry, d := b.start("t1")
		if fate := b.finish(entry, "t1", machine.Returned{Hold: hold("t1"), Reason: "drain"}, d); fate != store.Accepted {
			t.Fatalf("the outcome is %s", fate)
		}
		synctest.Wait() // the item is acknowledged, which nobody waits for
		w.want("q.1", machine.Pending, 1, 0)
		if _, ok := a.deliver(stale, "t2"); ok {
			t.Error("the job runs by an item that is gone")
		}
		w.want("q.1", machine.Pending, 1, 0)
		w.wantItems("q.1", 1)
		b.start("t3")
		w.want("q.1", machine.Running, 2, 0)
	})
}

// A claim that is held while somebody else takes the job is refused.
func TestClaimLandsTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		submitted := a.submit(job("1"))
		a.fail(jobWrites, natstest.Hold)
		refused := w.meanwhile(func() {
			if entry, ok := a.deliver(a.take(), "t1"); ok {
				t.Errorf("got %+v, running", entry.Value)
			}
		})
		synctest.Wait()
		b.again(submitted)
		if _, ok := b.deliver(b.take(), "t2"); !ok {
			t.Error("the job does not run, want it claimed")
		}
		a.link.Release()
		refused()
		w.want("q.1", machine.Running, 1, 0)
		if j := w.get("q.1").Value; !j.Held("t2") || a.Runs("q.1", "t1") {
			t.Errorf("held by %+v, and a runs it: %v", j.Lease, a.Runs("q.1", "t1"))
		}
	})
}

// A process that dies with its claim stored is taken over, as one that died
// while it ran the job.
func TestClaimThenDeath(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		a.fail(jobWrites, natstest.DownAfter)
		dying := w.loop(func(ctx context.Context) error {
			_, _, _ = a.Deliver(ctx, a.take(), "t1", a)
			return nil
		})
		time.Sleep(longGone)
		dying()
		a.leave()
		if _, ok := b.deliver(b.take(), "t2"); !ok {
			t.Error("the job does not run, want it taken over")
		}
		w.want("q.1", machine.Running, 2, 1)
	})
}

// A take-over goes through the same faults.
func TestTakeOverFaults(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.process("a"), w.process("b")
				a.submit(job("1"))
				a.start("t1")
				a.leave()
				a.forget("t1")
				a.join("a")
				b.fail(jobWrites, fault)
				entry, _ := b.start("t2")
				b.link.Release()
				if stored := w.get("q.1"); stored.Revision != entry.Revision {
					t.Errorf("the job is at revision %d, want %d", stored.Revision, entry.Revision)
				}
				w.want("q.1", machine.Running, 2, 1)
				w.wantOutcomes("q.1", machine.AttemptLost, "")
			})
		})
	}
}
