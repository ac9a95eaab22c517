package broadcast_test

import (
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/natstest"
)

// To count thousands of parts takes a few requests, however many ends are heard.
func TestCountsManyWithFewRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		k := w.keep("k", nil)
		const n = 5000
		w.submit(parent(n, func(f *machine.Fan) {
			for i := range f.Shares {
				f.Shares[i].Incarnation = 0 // as short as it may be: a record holds them
			}
		}))
		time.Sleep(moment)
		before := k.pub.Conn().Stats().OutMsgs
		w.endMany(w.manyOpen(n))
		for w.get("q.1").Value.State == machine.Waiting {
			time.Sleep(100 * time.Millisecond)
		}
		j := w.get("q.1").Value
		if j.State != machine.Succeeded || j.Fan.Tally.Succeeded != n {
			t.Errorf("it is %s: %+v", j.State, j.Fan.Tally)
		}
		if sent := k.pub.Conn().Stats().OutMsgs - before; sent > 200 {
			t.Errorf("the keeper sent %d messages to count %d parts", sent, n)
		} else {
			t.Logf("the keeper sent %d messages to count %d parts", sent, n)
		}
	})
}

// manyOpen returns the indices of n children.
func (w *world) manyOpen(n int) []int {
	open := w.open()
	if len(open) != n {
		w.Fatalf("%d children are open, want %d", len(open), n)
	}
	return open
}

// endMany lets children succeed, with one write each, and says so.
func (w *world) endMany(which []int) {
	w.Helper()
	parent := w.get("q.1")
	shares := must(w.Shares(w.Context(), parent.Value))(w)
	children := must(w.Children(w.Context(), parent, shares, which))(w)
	var flight sync.WaitGroup
	for _, child := range children {
		now := time.Now().UTC()
		j := must(child.Value.Apply(machine.Claimed{Claimant: machine.Claimant{
			Lease: machine.Lease{Node: child.Value.Pin.Node, Incarnation: 1, Token: "t"}, At: now,
		}}))(w)
		j = must(j.Apply(machine.Done{Hold: machine.Hold{Token: "t", At: now}}))(w)
		must(0, w.pub.Room(w.Context()))(w)
		flight.Add(1)
		w.jobs.UpdateAsync(child.Key, j, child.Revision, func(_ uint64, err error) {
			if err != nil {
				w.Error(err)
			} else {
				w.rumour("q.1", j.Parent.Part, j.State)
			}
			flight.Done()
		})
	}
	flight.Wait()
}

// What is heard while a family is read for the first time, of children that were read
// already, is taken in at once, and not at the next poll.
func TestHeardWhileRead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.submit(parent(1025, func(f *machine.Fan) { f.Done = machine.GoalAny })) // which are read at two times
		asked, ended := make(chan struct{}), make(chan struct{})
		k := w.keepOver(natstest.NewLink(t, w.srv, func(read natstest.Write) natstest.Fault {
			if read.Number == 2 {
				close(asked)
				<-ended
			}
			return natstest.Pass
		}, "$JS.API.DIRECT.GET.KV_mr_default_jobs"), "a")
		k.Seen("q.1")
		<-asked
		w.end(0, machine.Succeeded)
		time.Sleep(moment / 10)
		close(ended)
		time.Sleep(moment)
		if s := w.get("q.1").Value.State; s != machine.Succeeded {
			t.Errorf("it is %s", s)
		}
	})
}
