package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// pinned is a job for a node, with a rule if other nodes may have it.
func pinned(local string, share machine.Share, orElse machine.Else, rule *machine.Rule) machine.Job {
	j := job(local)
	j.Pin = &machine.Pin{Node: share.Node, Incarnation: share.Incarnation, Else: orElse, Rule: rule}
	return j
}

// prefer returns a choice of one node.
func prefer(share machine.Share) func(machine.Job) (string, uint64) {
	return func(machine.Job) (string, uint64) { return share.Node, share.Incarnation }
}

// none is the choice if no node fits.
func none(machine.Job) (string, uint64) { return "", 0 }

// keep chooses the node that a job has.
func keep(j machine.Job) (string, uint64) { return j.Pin.Node, j.Pin.Incarnation }

// places fails the test unless the owner moves a job, or not.
func (p *process) places(id string, choose func(machine.Job) (string, uint64), want bool) {
	p.w.Helper()
	moved, err := p.Place(p.w.Context(), id, choose)
	if err != nil || moved != want {
		p.w.Errorf("%s moved %t, %v, want %t", id, moved, err, want)
	}
}

var anywhere = &machine.Rule{Select: map[string]string{"disk": "ssd"}}

// What becomes of a job whose node is gone, that drains, or that was never seen.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		orElse machine.Else
		rule   *machine.Rule
		of     string                             // whom it is for
		choose func(machine.Job) (string, uint64) // nil: node b
		moved  bool
		state  machine.State
		node   string // "queue" for none
	}{
		{"there", machine.ElseWait, anywhere, "alive", keep, false, machine.Pending, "a"},
		{"draining", machine.ElseWait, anywhere, "alive", nil, true, machine.Pending, "b"},
		{"draining, no other", machine.ElseFail, anywhere, "alive", none, false, machine.Pending, "a"},
		{"gone", machine.ElseFail, anywhere, "dead", nil, true, machine.Pending, "b"},
		{"gone, no other, wait", machine.ElseWait, anywhere, "dead", none, true, machine.Pending, ""},
		{"gone, no other, any", machine.ElseAny, anywhere, "dead", none, true, machine.Pending, "queue"},
		{"gone, no other, fail", machine.ElseFail, anywhere, "dead", none, true, machine.Lost, "dead"},
		{"nowhere", machine.ElseWait, anywhere, "nowhere", nil, true, machine.Pending, "b"},
		{"nowhere, no other", machine.ElseWait, anywhere, "nowhere", none, false, machine.Pending, ""},
		{"nowhere, no other, any", machine.ElseAny, anywhere, "nowhere", none, true, machine.Pending, "queue"},
		{"gone, chosen all the same", machine.ElseWait, anywhere, "dead", keep, false, machine.Pending, "dead"},
		{"fixed, there", machine.ElseFail, nil, "alive", nil, false, machine.Pending, "a"},
		{"fixed, gone, fail", machine.ElseFail, nil, "dead", nil, true, machine.Lost, "dead"},
		{"fixed, gone, wait", machine.ElseWait, nil, "dead", nil, false, machine.Pending, "dead"},
		{"fixed, gone, any", machine.ElseAny, nil, "dead", nil, true, machine.Pending, "queue"},
		{"fixed, never seen, fail", machine.ElseFail, nil, "unseen", nil, true, machine.Lost, "unseen"},
		{"fixed, never seen, there now", machine.ElseFail, nil, "seen", nil, false, machine.Pending, "a"},
		{"fixed, came back, fail", machine.ElseFail, nil, "before", nil, true, machine.Lost, "back"},
		{"fixed, came back, any", machine.ElseAny, nil, "before", nil, false, machine.Pending, "back"},
		{"came back, rule", machine.ElseFail, anywhere, "before", none, false, machine.Pending, "back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, b, gone, back := w.process("a"), w.process("b"), w.process("dead"), w.process("back")
				of := map[string]machine.Share{
					"alive": a.share(), "seen": {Node: "a"}, "before": back.share(), "dead": gone.share(),
					"unseen": {Node: "unseen"}, "nowhere": {},
				}
				j := pinned("1", of[c.of], c.orElse, c.rule)
				a.submit(j)
				gone.crash()
				back.crash()
				time.Sleep(longGone)
				w.process("back")
				if c.choose == nil {
					c.choose = prefer(b.share())
				}
				a.places("q.1", c.choose, c.moved)
				w.want("q.1", c.state, 0, 0)
				got := "queue"
				if pin := w.get("q.1").Value.Pin; pin != nil {
					got = pin.Node
				}
				if got != c.node {
					t.Errorf("it is for node %q, want %q", got, c.node)
				}
				w.wantMail(c.state, c.node, j.Pin.Node)
			})
		})
	}
}

// wantMail fails the test unless q.1 lies where it has to, and nowhere else.
func (w *world) wantMail(state machine.State, node, before string) {
	w.Helper()
	queue, mails := uint64(0), uint64(0)
	if state == machine.Pending && node == "queue" {
		queue = 1
	} else if state == machine.Pending && node != "" {
		mails = 1
	}
	w.wantItems("q.1", queue)
	w.wantMails("*", "q.1", mails)
	if node != before && before != "" {
		w.wantMails(before, "q.1", 0)
	}
}

// Without a verdict nothing is gone.
func TestPlaceWithoutVerdict(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(pinned("1", b.share(), machine.ElseFail, nil))
		b.crash()
		time.Sleep(longGone)
		a.places("q.1", none, false)
		w.wantMails("b", "q.1", 1)
	})
}

// A node of which nothing is known any more, since there was no owner for as long as its
// description was kept, is found dead all the same.
func TestPlaceOfForgottenNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(pinned("1", b.share(), machine.ElseFail, nil))
		b.crash()
		time.Sleep(longGone)
		stream := must(w.js.Stream(t.Context(), "KV_"+ns.Bucket(streams.Nodes)))(t)
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$KV."+ns.Bucket(streams.Nodes)+".info.b")); err != nil {
			t.Fatal(err)
		}
		w.serve()
		time.Sleep(longGone)
		a.places("q.1", none, false) // and the owner is told
		time.Sleep(longGone)
		a.places("q.1", none, true)
		w.want("q.1", machine.Lost, 0, 0)
	})
}

// A job that runs, that has ended, that is not for a node, or that is not there, stays.
func TestPlaceNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("free"))
		a.submit(pinned("running", a.share(), machine.ElseWait, anywhere))
		a.startPart("q.running", "t1")
		a.submit(pinned("ended", a.share(), machine.ElseWait, anywhere))
		must(a.Cancel(t.Context(), "q.ended", "asked"))(t)
		a.submit(fan("family"))
		for _, id := range []string{"q.free", "q.running", "q.ended", "q.family", "q.none"} {
			a.places(id, prefer(b.share()), false)
		}
	})
}

// A delayed job moves with its timer, and is offered at its new place when it is due;
// one without a place is offered to nobody.
func TestPlaceDelayed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		for _, local := range []string{"early", "late"} {
			j := later(local, time.Minute)
			j.Pin = &machine.Pin{Rule: anywhere, Else: machine.ElseWait}
			a.submit(j)
		}
		a.places("q.early", prefer(a.share()), true)
		a.places("q.early", prefer(b.share()), true)
		a.heals("q.early")
		time.Sleep(2 * time.Minute)
		w.wantMails("b", "q.early", 1)
		w.wantMails("*", "q.early", 1)
		w.wantItems("q.late", 0)
		w.wantMails("*", "q.late", 0)
		a.places("q.late", prefer(b.share()), true)
		time.Sleep(time.Second)
		w.wantMails("b", "q.late", 1)
		for i, id := range []string{"q.early", "q.late"} {
			b.runPart(id, fmt.Sprint("t", i))
			w.want(id, machine.Succeeded, 1, 0)
		}
	})
}

// The owner dies at any write of a ruling, or its answer is lost: what the job needs is
// made up for, and the old node starts nothing.
func TestPlaceCrash(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer} {
		for n := range 3 { // the record, the offer, the withdrawal
			t.Run(fmt.Sprintf("%s/%d", fault, n+1), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					owner, a, b := w.process("o"), w.process("a"), w.process("b")
					a.submit(pinned("1", a.share(), machine.ElseWait, anywhere))
					d := a.mail("q.1")
					choose := prefer(b.share())
					owner.failNth(n+1, fault)
					if fault == natstest.LoseAnswer {
						owner.places("q.1", choose, true)
					} else {
						owner.die(func(ctx context.Context) { _, _ = owner.Place(ctx, "q.1", choose) })
					}
					if w.get("q.1").Value.Pin.Node == "a" {
						a.places("q.1", choose, true)
					}
					if _, err := b.Heal(t.Context(), "q.1"); err != nil {
						t.Error(err)
					}
					if _, ok := a.deliver(d, "t0"); ok {
						t.Error("it runs on the old node")
					}
					w.wantMails("a", "q.1", 0)
					b.runPart("q.1", "t1")
					w.want("q.1", machine.Succeeded, 1, 0)
				})
			})
		}
	}
}

// A ruling is late: the job was claimed meanwhile, or ruled on, or has ended.
func TestPlaceTooLate(t *testing.T) {
	for what, happens := range map[string]func(w *world, a, b *process){
		"claimed":   func(_ *world, a, _ *process) { a.startPart("q.1", "t1") },
		"placed":    func(_ *world, _, b *process) { b.places("q.1", prefer(b.share()), true) },
		"cancelled": func(w *world, _, b *process) { must(b.Cancel(w.Context(), "q.1", "asked"))(w) },
		"gone":      func(w *world, _, _ *process) { w.remove("q.1") },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				owner, a, b := w.process("o"), w.process("a"), w.process("b")
				a.submit(pinned("1", a.share(), machine.ElseWait, anywhere))
				owner.fail(jobWrites, natstest.Hold)
				ruled := w.meanwhile(func() { owner.places("q.1", prefer(machine.Share{Node: "c", Incarnation: 1}), false) })
				time.Sleep(time.Second)
				happens(w, a, b)
				before := w.states()
				owner.link.Release()
				ruled()
				if diff := cmp.Diff(before, w.states()); diff != "" {
					t.Errorf("jobs (-before +after):\n%s", diff)
				}
				w.wantMails("c", "q.1", 0)
			})
		})
	}
}
