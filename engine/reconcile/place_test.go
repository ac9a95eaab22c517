package reconcile_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/nodes"
)

// members returns the nodes that are there.
func (p *process) members(ctx context.Context) ([]plan.Node, error) {
	list, err := nodes.List(ctx, p.pub, ns)
	var there []plan.Node
	for _, m := range list {
		if m.State != nodes.Offline {
			there = append(there, plan.Node{
				ID: m.ID, Incarnation: m.Incarnation, Labels: m.Labels, Kinds: m.Kinds, Queues: m.Queues, Draining: m.Draining,
			})
		}
	}
	return there, err
}

// meet notes that a job was met that waits.
func (o *owner) meet(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[id]++
}

// enter registers a node that may have jobs of queue q.
func (w *world) enter(id string) *worker {
	w.Helper()
	k := w.join(id)
	must(0, k.node.SetInfo(w.Context(), func(i *nodes.Info) { i.Kinds, i.Queues = []string{"q.k"}, []string{"q"} }))(w)
	return k
}

// pinned makes it a job for a node, as it is now.
func (k *worker) pinned(otherwise machine.Else, rule bool) func(*machine.Job) {
	return func(j *machine.Job) {
		j.Pin = &machine.Pin{Node: k.node.ID(), Incarnation: k.node.Incarnation(), Else: otherwise}
		if rule {
			j.Pin.Rule = &machine.Rule{}
		}
	}
}

// mails returns how many messages of a job lie in the mailbox of a node.
func (w *world) mails(node, id string) uint64 {
	w.Helper()
	subject := "mr.default.mail." + node + "." + id
	return w.subjects(ns.MailStream(), subject)[subject]
}

// stands says where a job is: its state, its node, and where its item lies.
func (w *world) stands(id string) string {
	w.Helper()
	j := must(w.Get(w.Context(), id))(w).Value
	text := string(j.State)
	if j.Pin != nil {
		text += " for " + j.Pin.Node
		if j.Pin.Node != "" && w.mails(j.Pin.Node, id) > 0 {
			text += ", mail"
		}
	}
	if w.items(id) > 0 {
		text += ", item"
	}
	return text
}

// A node dies, and with it the place of jobs that it has not begun.
func TestNodeOfPinDies(t *testing.T) {
	tests := map[string]struct {
		otherwise machine.Else
		rule      bool
		another   bool
		want      string
	}{
		"a part is lost":                       {machine.ElseFail, false, true, "lost for a"},
		"a part waits":                         {machine.ElseWait, false, true, "pending for a, mail"},
		"any worker may have it":               {machine.ElseAny, false, true, "pending, item"},
		"a shard goes to another node":         {machine.ElseWait, true, true, "pending for b, mail"},
		"a shard waits for a place":            {machine.ElseWait, true, false, "pending for "},
		"a job goes to another that fits":      {machine.ElseAny, true, true, "pending for b, mail"},
		"a job goes to the queue if none fits": {machine.ElseAny, true, false, "pending, item"},
		"a job is lost if none fits":           {machine.ElseFail, true, false, "lost for a"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.fire()
				w.own("owner")
				a := w.enter("a")
				if test.another {
					w.enter("b")
				}
				time.Sleep(time.Minute)
				w.submit(1, "j", a.pinned(test.otherwise, test.rule))
				time.Sleep(time.Minute)
				if got := w.stands("q.j0"); got != "pending for a, mail" {
					t.Fatalf("it is %s, and its node is there", got)
				}
				a.crash()
				time.Sleep(2 * lease)
				if got := w.stands("q.j0"); got != test.want {
					t.Errorf("it is %s, want %s", got, test.want)
				}
				time.Sleep(11 * time.Minute)
				if got := w.stands("q.j0"); got != test.want {
					t.Errorf("it is %s after a while, want %s", got, test.want)
				}
			})
		})
	}
}

// A node dies while it runs a shard: the shard is in the mailbox of another one within
// twice the lease.
func TestShardFailsOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		o := w.own("owner")
		a := w.enter("a")
		w.enter("b")
		w.submit(1, "j", a.pinned(machine.ElseWait, true))
		w.change("q.j0", claimed(a.node, "t"))
		time.Sleep(time.Minute)
		a.crash()
		time.Sleep(2 * lease)
		if got := w.stands("q.j0"); got != "pending for b, mail" {
			t.Errorf("it is %s", got)
		}
		time.Sleep(time.Second)
		w.wantHealed(o, lacks{store.LackNode: 1})
	})
}

// A node that comes back finds what is for it, but for what was lost with its life
// before.
func TestNodeOfPinReturns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		a := w.enter("a")
		w.enter("b")
		w.submit(1, "part", a.pinned(machine.ElseFail, false))
		w.submit(1, "shard", a.pinned(machine.ElseWait, true))
		a.crash()
		time.Sleep(2 * lease) // the verdict is there, and nobody has ruled
		w.enter("a")
		w.own("owner")
		time.Sleep(seen + lease)
		if got := w.stands("q.part0"); got != "lost for a" {
			t.Errorf("the part is %s", got)
		}
		if got := w.stands("q.shard0"); got != "pending for a, mail" {
			t.Errorf("the shard is %s", got)
		}
	})
}

// A node drains: what may go elsewhere goes at once, what may not stays.
func TestNodeOfPinDrains(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		w.own("owner")
		a := w.enter("a")
		w.enter("b")
		time.Sleep(time.Minute)
		w.submit(1, "part", a.pinned(machine.ElseFail, false))
		w.submit(1, "shard", a.pinned(machine.ElseWait, true))
		time.Sleep(time.Minute)
		must(0, a.node.SetInfo(w.Context(), func(i *nodes.Info) { i.Draining = true }))(t)
		time.Sleep(3 * time.Second)
		if got := w.stands("q.shard0"); got != "pending for b, mail" {
			t.Errorf("the shard is %s", got)
		}
		if got := w.stands("q.part0"); got != "pending for a, mail" {
			t.Errorf("the part is %s", got)
		}
	})
}

// Jobs without a place get one as soon as a node comes that fits, and are shared out.
func TestPlaceIsFound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		o := w.own("owner")
		homeless := func(j *machine.Job) {
			j.Pin = &machine.Pin{Rule: &machine.Rule{Select: map[string]string{"zone": "x"}}, Else: machine.ElseWait}
		}
		ids := w.submit(9, "j", homeless)
		time.Sleep(time.Minute)
		w.enter("elsewhere")
		time.Sleep(time.Minute)
		w.wantHealed(o, lacks{})
		for i := range 3 {
			k := w.join(fmt.Sprint("n", i))
			must(0, k.node.SetInfo(w.Context(), func(info *nodes.Info) {
				info.Kinds, info.Queues, info.Labels = []string{"q.k"}, []string{"q"}, map[string]string{"zone": "x"}
			}))(t)
		}
		time.Sleep(3 * time.Second)
		counts := map[string]int{}
		for _, id := range ids {
			counts[w.stands(id)]++
		}
		want := map[string]int{"pending for n0, mail": 3, "pending for n1, mail": 3, "pending for n2, mail": 3}
		if diff := cmp.Diff(want, counts); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		time.Sleep(11 * time.Minute)
		w.wantHealed(o, lacks{store.LackPlace: 9})
	})
}

// What lay in mailboxes was destroyed, all of it or one message.
func TestMailIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		a := w.enter("a")
		const n = 200
		ids := w.submit(n, "j", a.pinned(machine.ElseWait, false))
		time.Sleep(time.Minute)
		w.wantHealed(o, lacks{})
		w.purge(ns.MailStream())
		time.Sleep(soon)
		for _, id := range ids {
			if w.mails("a", id) != 1 {
				t.Errorf("%s has no mail", id)
			}
		}
		w.wantHealed(o, lacks{store.LackItem: n})
		w.purgeSubject(ns.MailStream(), "mr.default.mail.a.q.j7")
		time.Sleep(10 * time.Minute)
		if w.mails("a", "q.j7") != 1 {
			t.Error("q.j7 has no mail")
		}
		w.wantHealed(o, lacks{store.LackItem: n + 1})
	})
}

// Jobs for one node do not count among those that the consumers of their queue hold.
func TestPinnedNeedNoItem(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		o := w.own("owner")
		a := w.enter("a")
		w.submit(100, "pinned", a.pinned(machine.ElseWait, false))
		w.submit(3, "plain", nil)
		w.submit(2, "delayed", func(j *machine.Job) {
			a.pinned(machine.ElseWait, false)(j)
			j.State, j.Due = machine.Scheduled, time.Now().Add(time.Hour).UTC()
		})
		time.Sleep(20 * time.Minute)
		w.wantHealed(o, lacks{})
		if got := o.Count()["q"]; got.Pending != 103 || got.Delayed != 2 {
			w.Errorf("%+v are counted", got)
		}
	})
}
