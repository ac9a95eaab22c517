package store

import (
	"context"
	"errors"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
)

// Choose returns a node for a job that has a rule, and its incarnation: the one that
// the job has if that may keep it, otherwise another, or "" if none fits. A node that
// drains does not fit.
type Choose func(j machine.Job) (node string, incarnation uint64)

// Place rules on a job that has not started and is for a node that is gone, or that
// drains, or that was not found yet. It reports whether the job has moved. Only a
// verdict says that a node is gone, or, if none of its incarnations is meant, that
// nobody is registered under its ID; a node that is there again keeps what has a
// rule, and what any worker may have otherwise.
//
//	rule   node    a node fits             none does
//	yes    gone    there                   waits without a place, or goes to the queue, or is lost
//	yes    drains  there                   stays
//	no     gone    (is not asked)          waits for it, or goes to the queue, or is lost
//
// What the old node has in its mailbox is withdrawn afterwards; until then it means
// nothing there, since the record says whom the job is for. Any number of owners may
// rule at once: the write that loses changes nothing, and its ruling is made anew
// when somebody looks next.
//
// If the process dies after the write, the job is not offered at its new place, or
// what it owes as a lost one was not carried out: [Store.Heal] offers it, and the
// owner who counts reads its record. What is left in the mailbox of the old node is
// dropped by that node, or goes when it is too old.
func (s *Store) Place(ctx context.Context, id string, choose Choose) (moved bool, err error) {
	entry, err := s.Get(ctx, id)
	if err != nil {
		return false, passOver(err)
	}
	ev, err := s.ruling(ctx, entry.Value, choose)
	if err != nil || ev == nil {
		return false, err
	}
	now, err := s.move(ctx, entry, ev)
	if err != nil || !ruled(now.Value, ev) {
		return false, passRefusal(err)
	}
	if err := s.pay(ctx, now, passing); err != nil {
		return true, err
	}
	s.vacate(ctx, entry)
	return true, nil
}

// ruling returns what becomes of a job whose node may be gone, or nil if it stays.
func (s *Store) ruling(ctx context.Context, j machine.Job, choose Choose) (machine.Event, error) {
	if j.Pin == nil || !j.State.Known() || j.State.Final() || j.State == machine.Running || j.Fan != nil {
		return nil, nil
	}
	gone, err := s.gone(ctx, j)
	if err != nil {
		return nil, err
	}
	at := s.Clock.Now()
	if j.Pin.Rule != nil {
		node, incarnation := choose(j)
		switch {
		case node == j.Pin.Node && (node != "" || j.Pin.Else == machine.ElseWait):
			return nil, nil
		case node != "":
			pin := *j.Pin
			pin.Node, pin.Incarnation = node, incarnation
			return machine.Placed{At: at, Pin: &pin}, nil
		}
	}
	if !gone {
		return nil, nil
	}
	switch {
	case j.Pin.Else == machine.ElseFail:
		return machine.Deserted{At: at}, nil
	case j.Pin.Else == machine.ElseAny:
		return machine.Placed{At: at}, nil
	case j.Pin.Rule != nil:
		pin := *j.Pin
		pin.Node, pin.Incarnation = "", 0
		return machine.Placed{At: at, Pin: &pin}, nil
	}
	return nil, nil // it waits for its node
}

// gone reports whether the node that a job is for is gone. A part that is lost with
// its node is lost with the incarnation that it was made for; what else is meant for
// a node is as well off with the next one. The leader answers. The owner is told of a
// node that is not there and on which there is no verdict: none comes by itself if
// there was no owner for as long as the node's description was kept.
func (s *Store) gone(ctx context.Context, j machine.Job) (bool, error) {
	pin := *j.Pin
	if pin.Node == "" {
		return true, nil
	}
	found := pin.Incarnation == 0 // dead, or never meant
	if !found {
		dead, err := s.Asker.Verdict(ctx, pin.Node)
		if err != nil {
			return false, err
		}
		found = dead >= pin.Incarnation
		if found && pin.Rule == nil && pin.Else == machine.ElseFail {
			return true, nil
		}
	}
	now, err := s.Asker.Incarnation(ctx, pin.Node)
	if err == nil && now == 0 && !found {
		err = s.Asker.Suspect(pin.Node, pin.Incarnation)
	}
	return err == nil && now == 0 && found, err
}

// deserted reports whether the node that has the delivery of a part is too late for
// it: the incarnation that it was for is dead, and the part is lost with it. So what
// becomes of a part does not depend on who is quicker, the owner or the node's next
// process.
func (s *Store) deserted(ctx context.Context, j machine.Job, incarnation uint64) (bool, error) {
	pin := j.Pin
	if pin == nil || pin.Rule != nil || pin.Else != machine.ElseFail || j.State == machine.Running ||
		pin.Incarnation == 0 || pin.Incarnation == incarnation {
		return false, nil
	}
	return s.gone(ctx, j)
}

// ruled reports whether a ruling is what is stored.
func ruled(j machine.Job, ev machine.Event) bool {
	placed, ok := ev.(machine.Placed)
	switch {
	case !ok:
		return j.State == machine.Lost
	case placed.Pin == nil || j.Pin == nil:
		return placed.Pin == nil && j.Pin == nil
	}
	return j.Pin.Node == placed.Pin.Node && j.Pin.Incarnation == placed.Pin.Incarnation
}

// vacate withdraws what lies in the mailbox of the node that a job was for. It does no
// harm there, so it is tried only so often.
func (s *Store) vacate(ctx context.Context, before Entry) {
	const tries = 3
	node := home(before.Value)
	queue, local, err := name.SplitJobID(before.Key)
	if err != nil || node == "" {
		return
	}
	for try := range tries {
		if err = s.Work.Withdraw(ctx, node, queue, local, before.Revision); err == nil || s.pause(ctx, try) != nil {
			break
		}
	}
	if err != nil {
		s.log.DebugContext(ctx, "mail stays until its node looks, or it is too old", "job", before.Key, "node", node, "err", err)
	}
}

// passRefusal forgives that a job does not allow an event any more.
func passRefusal(err error) error {
	var refused *machine.MoveError
	if errors.As(err, &refused) {
		return nil
	}
	return passOver(err)
}
