package reconcile_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/streams"
)

type lacks = map[store.Lack]int

// A submitter dies between the record and what follows from it, which is found
// once that is surely lost.
func TestSubmitterDies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		time.Sleep(time.Minute)
		in := time.Now().Add(time.Hour)
		w.create(job("pending"))
		scheduled := job("scheduled")
		scheduled.State, scheduled.Due = machine.Scheduled, in
		w.create(scheduled)
		limited := job("limited")
		limited.StartBy, limited.Deadline = in, in.Add(time.Hour)
		w.create(limited)
		time.Sleep(9 * time.Second)
		w.wantHealed(o, lacks{})
		time.Sleep(seen - 9*time.Second)
		if n := w.items("q.pending", "q.scheduled"); n != 1 {
			t.Errorf("%d of two jobs have items, want 1", n)
		}
		want := map[string]uint64{
			ns.TimerSubject(in, streams.PurposeDue, "q", "scheduled"):                   1,
			ns.TimerSubject(in, streams.PurposeQueued, "q", "limited"):                  1,
			ns.TimerSubject(in.Add(time.Hour), streams.PurposeDeadline, "q", "limited"): 1,
		}
		if diff := cmp.Diff(want, w.subjects(ns.TimerStream(), ">")); diff != "" {
			t.Errorf("timers (-want +got):\n%s", diff)
		}
		time.Sleep(lease) // the job with limits lacked its item besides
		w.wantHealed(o, lacks{store.LackItem: 2, store.LackTimer: 2})
	})
}

// A job that moves while it is looked at has somebody who drives it, as far as
// anybody can tell.
func TestMovesMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		k := w.join("a")
		time.Sleep(time.Minute + tick/2)
		w.create(job("j"))
		time.Sleep(10*time.Second + tick/4) // the reader has seen it, and it is looked at with the next tick
		w.change("q.j", claimed(k.node, "t"), machine.Erred{
			Hold: machine.Hold{Token: "t", At: time.Now()}, Error: machine.Error{Message: "boom"}, After: time.Hour,
		})
		time.Sleep(9 * time.Second)
		w.wantHealed(o, lacks{})
		time.Sleep(3 * time.Second) // it is not driven, after all
		w.wantHealed(o, lacks{store.LackTimer: 1})
	})
}

// What was lost before the owner came is found at its takeover.
func TestTakeover(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.create(job("pending"))
		due := job("due")
		due.State, due.Due = machine.Scheduled, time.Now().Add(time.Second)
		w.create(due)
		w.create(job("ended"))
		w.change("q.ended", machine.Stopped{Cause: "no", At: time.Now()}) // without a time to live
		w.create(job("removing"))
		w.change("q.removing", machine.Stopped{Cause: "no", At: time.Now()}, machine.Removed{At: time.Now()})
		time.Sleep(time.Minute)
		o := w.own("owner")
		time.Sleep(2 * time.Second)
		w.wantHealed(o, lacks{store.LackItem: 1, store.LackTimer: 1, store.LackExpiry: 1, store.LackRemoval: 1})
		if _, err := w.Get(t.Context(), "q.removing"); err == nil {
			t.Error("the job that was being removed is still there")
		}
		w.fire()
		time.Sleep(time.Second)
		if n := w.items("q.pending", "q.due"); n != 2 {
			t.Errorf("%d of two jobs have items", n)
		}
		o.stop()
		o = w.own("next")
		time.Sleep(11 * time.Minute)
		w.wantHealed(o, lacks{})
	})
}

// A job runs, and its item is gone. Its node has the last word while it lives;
// then the job is offered again.
func TestRunning(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		k := w.work("a", succeed(time.Hour))
		o := w.own("owner")
		w.submit(3, "j", nil)
		time.Sleep(time.Minute)
		w.purge(ns.WorkStream())
		time.Sleep(5 * time.Minute)
		w.wantHealed(o, lacks{})
		k.crash()
		w.work("b", succeed(time.Second))
		w.within(2*lease+4*time.Second, "the jobs have ended elsewhere", w.ended([]string{"q.j0", "q.j1", "q.j2"}, machine.Succeeded))
		w.wantHealed(o, lacks{store.LackNode: 3})
	})
}

// A node dies, and there is no worker for its jobs: they do not stay running for
// longer than twice the lease, also those that it claimed just before.
func TestOrphans(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		k := w.work("a", succeed(time.Hour))
		o := w.own("owner")
		ids := w.submit(3, "old", nil)
		time.Sleep(time.Minute)
		ids = append(ids, w.submit(2, "new", nil)...)
		w.change("q.old0", machine.Stopped{Cause: "no", At: time.Now()})
		time.Sleep(time.Second)
		k.crash()
		get := func(id string) machine.Job { return must(w.Get(t.Context(), id))(t).Value }
		w.within(2*lease, "nothing runs", func() bool {
			return !slices.ContainsFunc(ids, func(id string) bool { return get(id).State == machine.Running })
		})
		for _, id := range ids {
			want := machine.Pending
			if id == "q.old0" {
				want = machine.Cancelled
			}
			if j := get(id); j.State != want {
				t.Errorf("%s is %s, want %s", id, j.State, want)
			}
		}
		time.Sleep(time.Second) // it counts afterwards
		w.wantHealed(o, lacks{store.LackNode: len(ids)})
	})
}

// A node that did not hear that an attempt is to end is told again and again.
func TestTold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		k := w.work("a", succeed(time.Hour))
		o := w.own("owner")
		w.submit(1, "j", nil)
		time.Sleep(time.Minute)
		w.change("q.j0", machine.Stopped{Cause: "no", At: time.Now()})
		time.Sleep(seen + 4*lease)
		if n := k.told(); n < 10 || n > 16 {
			t.Errorf("the node was told %d times, want every third of the lease", n)
		}
		w.wantHealed(o, lacks{})
	})
}

// An attempt does not end although its deadline has passed. Its timer has fired
// and lacks to nobody.
func TestOverrun(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		k := w.work("a", succeed(time.Hour))
		o := w.own("owner")
		w.submit(1, "j", func(j *machine.Job) { j.Deadline = machine.Millisecond(time.Now().Add(time.Minute)) })
		time.Sleep(2 * time.Minute)
		if n := k.told(); n < 20 {
			t.Errorf("the node was told %d times, want every third of the lease", n)
		}
		w.wantHealed(o, lacks{})
	})
}

// A node dies between the record of a retry and its timer.
func TestNodeDiesBeforeTimer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		o := w.own("owner")
		k := w.join("a")
		w.create(job("j"))
		w.change("q.j", claimed(k.node, "t"), machine.Erred{
			Hold: machine.Hold{Token: "t", At: time.Now()}, Error: machine.Error{Message: "boom"}, After: 20 * time.Second,
		})
		time.Sleep(seen)
		w.wantHealed(o, lacks{store.LackTimer: 1})
		time.Sleep(10 * time.Second)
		if n := w.items("q.j"); n != 1 {
			t.Error("the job was not offered when it was due")
		}
	})
}

// What cannot be looked at keeps nobody from looking at the others.
func TestStrangeRecords(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		put := func(key string, header nats.Header) {
			t.Helper()
			msg := &nats.Msg{Subject: "$KV." + ns.Bucket(streams.Jobs) + "." + key, Header: header, Data: []byte("?")}
			must(w.pub.Publish(t.Context(), msg))(t)
		}
		put("q.early", nats.Header{"Mr-State": {"scheduled"}, "Mr-Due": {"-5"}})
		put("q.broken", nats.Header{"Mr-State": {"pending"}, "Mr-Deadline": {"?"}})
		put("q.newer", nats.Header{"Mr-State": {"dreaming"}})
		put("q", nats.Header{"Mr-State": {"pending"}})
		put("q.r.s", nats.Header{"Mr-State": {"pending"}})
		put("q.headless", nil)
		w.create(job("a"))
		time.Sleep(seen)
		w.wantHealed(o, lacks{store.LackItem: 1})
		w.create(job("b"))
		time.Sleep(11 * time.Minute)
		w.wantHealed(o, lacks{store.LackItem: 2})
	})
}

// A node that is frozen answers neither yes nor no. Its jobs are looked at again
// until there is a verdict on it.
func TestFrozenNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		o := w.own("owner")
		k := w.work("a", succeed(time.Hour))
		ids := w.submit(slots, "j", nil)
		time.Sleep(time.Minute)
		w.purge(ns.WorkStream())
		must(w.pub.Conn().SubscribeSync(ns.CtlSubject("a")))(t) // hears and does not answer
		k.crash()
		w.within(3*lease, "the jobs are offered", func() bool { return w.items(ids...) == len(ids) })
		w.wantHealed(o, lacks{store.LackNode: len(ids)})
	})
}
