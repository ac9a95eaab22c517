package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/streams"
)

// share is a part for a node, as it is now.
func (p *process) share() machine.Share {
	return machine.Share{Node: p.node.ID(), Incarnation: p.node.Incarnation()}
}

// fan is a broadcast to some nodes.
func fan(local string, shares ...machine.Share) machine.Job {
	j := job(local)
	j.State, j.Input = machine.Waiting, []byte(`{"do":"flush"}`)
	j.Fan = &machine.Fan{Shares: shares, Total: len(shares), OnLost: machine.ElseFail, Done: machine.GoalAll}
	return j
}

// strangers are the shares of nodes that nobody knows.
func strangers(n int) []machine.Share {
	shares := make([]machine.Share, n)
	for i := range shares {
		shares[i] = machine.Share{Node: fmt.Sprintf("n%d", i), Incarnation: 1}
	}
	return shares
}

// bulky are two shares of so many bytes each.
func bulky(size int) []machine.Share {
	shares := strangers(2)
	for i := range shares {
		shares[i].Parameter = string(text(size))
	}
	return shares
}

// part is the ID of a part of q.1.
func part(of string) string { return store.ChildID("q.1", of) }

// mails returns how many messages of a job lie in the mailbox of a node.
func (w *world) mails(node, id string) uint64 {
	w.Helper()
	synctest.Wait()
	stream := must(w.js.Stream(w.Context(), ns.MailStream()))(w)
	info := must(stream.Info(w.Context(), jetstream.WithSubjectFilter("mr.default.mail."+node+"."+id)))(w)
	var n uint64
	for _, count := range info.State.Subjects {
		n += count
	}
	return n
}

// wantMails fails the test unless n messages of a job are in the mailbox of a node.
func (w *world) wantMails(node, id string, n uint64) {
	w.Helper()
	if got := w.mails(node, id); got != n {
		w.Errorf("%s has %d messages for node %s, want %d", id, got, node, n)
	}
}

// states returns the states of all records, by ID.
func (w *world) states() map[string]machine.State {
	w.Helper()
	list := must(w.jobs.ListStale(w.Context(), ">"))(w)
	states := make(map[string]machine.State, len(list))
	for _, entry := range list {
		states[entry.Key] = entry.Value.State
	}
	return states
}

// wantParts fails the test unless these are the states of the parts of q.1.
func (w *world) wantParts(want map[string]machine.State) {
	w.Helper()
	got := w.states()
	delete(got, "q.1")
	byID := make(map[string]machine.State, len(want))
	for of, state := range want {
		byID[part(of)] = state
	}
	if diff := cmp.Diff(byID, got); diff != "" {
		w.Errorf("parts (-want +got):\n%s", diff)
	}
}

// endings returns what the owner is told from now on.
func (w *world) endings() (list func() []store.Ending) {
	return listen(w, store.EndingSubject(ns), store.ReadEnding)
}

// listen returns what is published on a subject from now on.
func listen[T any](w *world, subject string, read func(*nats.Msg) (T, error)) (list func() []T) {
	w.Helper()
	synctest.Wait()
	sub := must(w.pub.Conn().SubscribeSync(subject))(w)
	if err := w.pub.Conn().Flush(); err != nil {
		w.Fatal(err)
	}
	return func() (list []T) {
		w.Helper()
		synctest.Wait()
		for {
			msg, err := sub.NextMsg(time.Millisecond)
			if errors.Is(err, nats.ErrTimeout) {
				return list
			}
			list = append(list, must(read(msg))(w))
		}
	}
}

// hand lets go of what it is given.
type hand struct{}

func (hand) Done(uint64)                {}
func (hand) Left(uint64, time.Duration) {}
func (hand) Kept(uint64)                {}

// mail takes what lies in the mailbox of the node for a job.
func (p *process) mail(id string) *streams.Delivery {
	p.w.Helper()
	return p.mailOf(p.node.ID(), id)
}

// mailOf takes what lies in the mailbox of any node for a job.
func (p *process) mailOf(node, id string) (taken *streams.Delivery) {
	p.w.Helper()
	synctest.Wait()
	_, _, err := p.work.Mailbox(node, "q", hand{}).Look(p.w.Context(), 0, 1000, func(d *streams.Delivery, err error) {
		if err != nil {
			p.w.Error(err)
		}
		if name.JobID(d.Queue, d.Local) == id {
			taken = d
		}
	})
	if err != nil {
		p.w.Fatal(err)
	}
	if taken == nil {
		p.w.Fatalf("nothing lies in the mailbox of node %s for %s", node, id)
	}
	return taken
}

// startPart runs a part on a node.
func (p *process) startPart(id, token string) (store.Entry, *streams.Delivery) {
	p.w.Helper()
	d := p.mail(id)
	entry, ok := p.deliver(d, token)
	if !ok {
		p.w.Fatalf("%s does not run on %s: it is %s", id, p.node.ID(), p.w.get(id).Value.State)
	}
	return entry, d
}

// runPart lets a part succeed on a node.
func (p *process) runPart(id, token string) {
	p.w.Helper()
	entry, d := p.startPart(id, token)
	p.finish(entry, token, done(token), d)
}

// fork makes all children of a job.
func (p *process) fork(parent store.Entry) error {
	p.w.Helper()
	shares := must(p.Shares(p.w.Context(), parent.Value))(p.w)
	return p.Fork(p.w.Context(), parent, shares, numbers(len(shares)))
}

func numbers(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// conclude ends q.1.
func (p *process) conclude(ev machine.Concluded) store.Entry {
	p.w.Helper()
	ev.At = time.Now().UTC()
	return must(p.Conclude(p.w.Context(), p.w.get("q.1"), ev))(p.w)
}

// A broadcast has a child for each of its nodes as soon as it is submitted, and each
// of them lies in the mailbox of its node. Submitting it again changes nothing.
func TestFamily(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		told := w.endings()
		j := fan("1", a.share(), b.share())
		j.MaxAttempts, j.Trace = 3, map[string]string{"traceparent": "00-1"}
		a.submit(j)
		w.wantParts(map[string]machine.State{"a": machine.Pending, "b": machine.Pending})
		for _, p := range []*process{a, b} {
			child := w.get(part(p.node.ID())).Value
			want := machine.Job{
				ID: child.ID, Kind: "q.k", State: machine.Pending, MaxAttempts: 3, Trace: j.Trace, Created: child.Created,
				Pin:    &machine.Pin{Node: p.node.ID(), Incarnation: p.node.Incarnation(), Else: machine.ElseFail},
				Parent: &machine.Parent{ID: "q.1", Created: w.get("q.1").Value.Created, Part: p.node.ID()},
			}
			if diff := cmp.Diff(want, child); diff != "" {
				t.Errorf("child (-want +got):\n%s", diff)
			}
			if input := must(a.Input(t.Context(), child))(t); string(input) != string(j.Input) {
				t.Errorf("the input of the child is %s", input)
			}
			w.wantMails(p.node.ID(), child.ID, 1)
		}
		w.wantItems("q.1", 0)
		if diff := cmp.Diff([]store.Ending{{Parent: "q.1"}}, told()); diff != "" {
			t.Errorf("the owner is told (-want +got):\n%s", diff)
		}

		a.runPart(part("a"), "t1")
		if diff := cmp.Diff([]store.Ending{{Parent: "q.1", Part: "a", State: machine.Succeeded}}, told()); diff != "" {
			t.Errorf("the owner is told (-want +got):\n%s", diff)
		}
		before := w.get(part("a"))
		if _, created, err := b.Submit(t.Context(), j); created || err != nil {
			t.Errorf("created %v, %v", created, err)
		}
		if after := w.get(part("a")); after.Revision != before.Revision {
			t.Error("a child that has ended was written to")
		}
		w.wantParts(map[string]machine.State{"a": machine.Succeeded, "b": machine.Pending})
		if w.expires(w.get(part("a"))) {
			t.Error("a child expires by itself")
		}
		a.conclude(machine.Concluded{Tally: machine.Tally{Succeeded: 1, Failed: 1}, Error: &machine.Error{Message: "1 of 2"}})
		w.wantParts(map[string]machine.State{"a": machine.Succeeded, "b": machine.Cancelled})
		w.wantMails("b", part("b"), 0)
		w.wantTimers("q.1", "expiry")
	})
}

// A child that was claimed has the input that its claim has read, each time a copy of its
// own; where another's parent was read since, it is read again.
func TestInputOfClaimed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		inputs := map[string]string{"1": `"one"`, "2": `"two"`}
		for local, input := range inputs {
			j := fan(local, p.share())
			j.Input = json.RawMessage(input)
			p.submit(j)
		}
		one, _ := p.startPart(store.ChildID("q.1", "a"), "t1")
		two, _ := p.startPart(store.ChildID("q.2", "a"), "t2")
		for _, entry := range []store.Entry{one, two, one, two} {
			input := must(p.Input(t.Context(), entry.Value))(t)
			if want := inputs[strings.TrimPrefix(entry.Value.Parent.ID, "q.")]; string(input) != want {
				t.Errorf("%s: the input is %s, want %s", entry.Key, input, want)
			}
			clear(input)
		}
		w.remove("q.1")
		w.remove("q.2")
		if input, err := p.Input(t.Context(), two.Value); string(input) != inputs["2"] || err != nil {
			t.Errorf("it is read again: %s, %v", input, err)
		}
		if _, err := p.Input(t.Context(), one.Value); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the input of another is %v", err)
		}
	})
}

// expires reports whether a record goes by itself.
func (w *world) expires(entry store.Entry) bool {
	w.Helper()
	stream := must(w.js.Stream(w.Context(), "KV_mr_default_jobs"))(w)
	msg := must(stream.GetMsg(w.Context(), entry.Revision))(w)
	return msg.Header.Get(jetstream.MsgTTLHeader) != ""
}

// Shards have numbers and parameters, and a rule. One without a place is offered to
// nobody.
func TestShards(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		j := fan("1", p.share(), machine.Share{Parameter: "north"})
		j.Fan.Shards, j.Fan.OnLost, j.Fan.Select = true, "", map[string]string{"disk": "ssd"}
		p.submit(j)
		w.wantParts(map[string]machine.State{"0": machine.Pending, "1": machine.Pending})
		child := w.get(part("1")).Value
		rule := &machine.Rule{Select: j.Fan.Select}
		if diff := cmp.Diff(&machine.Pin{Rule: rule, Else: machine.ElseWait}, child.Pin); diff != "" {
			t.Errorf("pin (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(&machine.Shard{Index: 1, Total: 2, Parameter: "north"}, child.Parent.Shard); diff != "" {
			t.Errorf("shard (-want +got):\n%s", diff)
		}
		w.wantMails("a", part("0"), 1)
		w.wantMails("*", part("1"), 0)
		w.wantItems(part("1"), 0)
		p.heals(part("1")) // it is the owner who finds a place
	})
}

// More shares than fit into a record are a blob, which is part of the job: it is not
// swept, and it goes with the job.
func TestSharesBlob(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		j := fan("1", bulky(store.Inline/2)...)
		p.submit(j)
		w.wantObjects(1)
		entry := w.get("q.1")
		if entry.Value.Fan.SharesBlob == nil || len(entry.Value.Fan.Shares) > 0 {
			t.Error("the shares are in the record")
		}
		if diff := cmp.Diff(j.Fan.Shares, must(p.Shares(t.Context(), entry.Value))(t)); diff != "" {
			t.Errorf("shares (-want +got):\n%s", diff)
		}
		w.wantParts(map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending})
		if _, created, err := p.Submit(t.Context(), j); created || err != nil {
			t.Errorf("created %v, %v", created, err)
		}
		w.wantObjects(1)
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		time.Sleep(2 * time.Hour)
		if swept, err := p.Sweep(t.Context()); swept > 0 || err != nil {
			t.Errorf("%d swept, %v", swept, err)
		}
		if err := p.Delete(t.Context(), "q.1"); err != nil {
			t.Error(err)
		}
		w.wantNothing()
	})
}

// wantNothing fails the test unless nothing is left in any stream of jobs.
func (w *world) wantNothing() {
	w.Helper()
	synctest.Wait()
	for _, name := range []string{"KV_mr_default_jobs", ns.WorkStream(), ns.MailStream(), ns.TimerStream(), ns.LogStream(), ns.BlobStream()} {
		stream := must(w.js.Stream(w.Context(), name))(w)
		if n := stream.CachedInfo().State.Msgs; n > 0 {
			info := must(stream.Info(w.Context(), jetstream.WithSubjectFilter(">")))(w)
			w.Errorf("%s holds %d messages: %v", name, n, info.State.Subjects)
		}
	}
}
