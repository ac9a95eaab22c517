package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/bug"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Lack is something that a job needs to go on and that was not there.
type Lack string

// What a job can lack.
const (
	LackItem    Lack = "item"    // nobody would start it: offered again
	LackTimer   Lack = "timer"   // nothing would happen when it is due: set again
	LackExpiry  Lack = "expiry"  // it would never go: its expiry timer is set
	LackRemoval Lack = "removal" // whoever was to remove it died: removed
	LackNode    Lack = "node"    // its node is gone, and nobody took it: pending again, or ended
	LackParent  Lack = "parent"  // its parent has ended, or is gone: cancelled
	LackPlace   Lack = "place"   // its node is gone or drains, or none was found: for another by now, or ended
)

// Lacks are all that a job can lack.
var Lacks = []Lack{LackItem, LackTimer, LackExpiry, LackRemoval, LackNode, LackParent, LackPlace}

// Heal looks for what the job needs that is not there, makes up for it, and
// returns what it was. A job that is not there lacks nothing, and neither does
// one that a newer build wrote. Everything is read from the leader; a job that
// moved meanwhile had what drove it. What happens to it afterwards makes a
// harmless item or timer of what is done here.
//
// A running job whose node is gone is made pending, or ends if somebody wants
// that, whether a worker will come for it or not: a take-over alone would leave it
// running for as long as its queue has no worker. The node of a running job that
// shall end is told again, which heals nothing.
//
// A child that has not ended and whose parent does not wait for it is cancelled: it was
// made late, or whoever ended its parent died. What a waiting job needs is its timers;
// its children are the owner's, who counts them.
//
// A job with a unique key that another job has got before this one was offered is
// taken away: its record landed late.
//
// If the process dies after it made a job pending, the job has no item, or that of
// its last attempt: the next look finds out.
func (s *Store) Heal(ctx context.Context, id string) ([]Lack, error) {
	entry, err := s.Get(ctx, id)
	if err != nil {
		return nil, passOver(err)
	}
	lacks, err := s.heal(ctx, entry)
	if err != nil {
		return nil, fmt.Errorf("store: heal job %s: %w", id, err)
	}
	return lacks, nil
}

func (s *Store) heal(ctx context.Context, entry Entry) ([]Lack, error) {
	if released, err := s.release(ctx, entry); err != nil || released {
		return []Lack{LackNode}, err
	}
	if disowned, err := s.disown(ctx, entry); err != nil || disowned {
		return []Lack{LackParent}, err
	}
	lacks, err := s.lacks(ctx, entry)
	if err != nil || len(lacks) == 0 {
		return nil, err
	}
	if now, err := s.Get(ctx, entry.Key); now.Revision != entry.Revision {
		return nil, passOver(err)
	}
	if late, err := s.landedLate(ctx, entry.Value); err != nil {
		return nil, err
	} else if late {
		return []Lack{LackRemoval}, s.takeBack(ctx, entry)
	}
	for _, lack := range lacks {
		if err := s.carryOut(ctx, remedies[lack], entry); err != nil {
			return nil, err
		}
	}
	return lacks, s.undo(ctx, entry)
}

// release takes a running job from a node that does not run it, and carries out
// what the job owes then. It reports whether it did. It asks the node, or reads the
// verdict, so it is as right as a worker that takes over. The item that led to the
// attempt may be there still, and come back late: another one is offered.
func (s *Store) release(ctx context.Context, entry Entry) (bool, error) {
	if entry.Value.State != machine.Running {
		return false, nil
	}
	lease := entry.Value.Lease
	answer, err := s.Asker.Ask(ctx, nodes.Claim{Node: lease.Node, Incarnation: lease.Incarnation, Job: entry.Key, Token: lease.Token})
	if err != nil || answer == nodes.Yes || answer == nodes.Silent {
		return false, err
	}
	now, err := s.move(ctx, entry, machine.Orphaned{At: s.Clock.Now(), LostClaim: answer == nodes.NoSame})
	ended, lost := now.Value.Ended(lease.Token)
	if err != nil || !lost || ended.Outcome != machine.AttemptLost || now.Value.State == machine.Running {
		return false, passOver(err) // somebody else was quicker, or it is not known
	}
	err = s.Owe(ctx, now)
	if home(now.Value) != home(entry.Value) { // which may never be there again to drop it
		s.vacate(ctx, entry)
	}
	return true, err
}

// disown ends a child that its parent does not wait for, and reports whether it did.
func (s *Store) disown(ctx context.Context, entry Entry) (bool, error) {
	j := entry.Value
	if j.Parent == nil || !j.State.Known() || j.State.Final() || j.Cancel != nil {
		return false, nil
	}
	now, err := s.stopChild(ctx, entry, 0)
	return stopped(now.Value), passRefusal(err)
}

// remedies make up for what a job lacks.
var remedies = map[Lack]machine.Debt{LackItem: machine.Offer, LackTimer: machine.SetTimers, LackRemoval: machine.Erase}

// lacks is the table of what must exist for a job.
func (s *Store) lacks(ctx context.Context, entry Entry) ([]Lack, error) {
	j := entry.Value
	queue, local, err := name.SplitJobID(entry.Key)
	switch {
	case err != nil:
		return nil, err
	case j.State == machine.Removing:
		return []Lack{LackRemoval}, nil
	case j.State.Final() || !j.State.Known():
		return nil, nil // see HealExpiry
	case bug.AckFirst && j.State == machine.Pending, bug.Forget && j.State.Delayed():
		return nil, nil // nobody thought of it
	case j.State == machine.Running && j.Cancel != nil:
		if err := s.tell(ctx, entry); err != nil {
			return nil, err
		}
	}
	timer, err := s.lacksTimer(ctx, j, queue, local)
	if err != nil {
		return nil, err
	}
	item, err := s.lacksItem(ctx, entry, queue, local)
	if err != nil {
		return nil, err
	}
	var list []Lack
	if timer {
		list = append(list, LackTimer)
	}
	if item {
		list = append(list, LackItem)
	}
	return list, nil
}

// lacksTimer reports whether one of the timers of a job is not there. Once a
// delayed job is due, an item is as good.
func (s *Store) lacksTimer(ctx context.Context, j machine.Job, queue, local string) (bool, error) {
	for _, t := range needs(j) {
		has, err := s.Timers.Has(ctx, streams.Timer{Purpose: streams.Purpose(t.Purpose), At: t.At, Queue: queue, Local: local})
		if err == nil && !has && t.Purpose == machine.Due && !t.At.After(s.Clock.Now()) {
			has, err = s.Work.Offered(ctx, home(j), queue, local)
		}
		if err != nil || !has {
			return err == nil, err
		}
	}
	return false, nil
}

// lacksItem reports whether nobody would start a job that waits for a worker.
func (s *Store) lacksItem(ctx context.Context, entry Entry, queue, local string) (bool, error) {
	if entry.Value.State != machine.Pending || entry.Value.Homeless() {
		return false, nil
	}
	has, err := s.Work.Offered(ctx, home(entry.Value), queue, local)
	return err == nil && !has, err
}

// passOver forgives that there is no record, or none of ours.
func passOver(err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable) {
		return nil
	}
	return err
}

// HealExpiry sets the expiry timer of a job that has ended and whose record does
// not expire by itself, unless it is set. A child goes with its parent, and needs one
// if that is gone.
func (s *Store) HealExpiry(ctx context.Context, id string) ([]Lack, error) {
	queue, local, err := name.SplitJobID(id)
	if err != nil {
		return nil, err
	}
	entry, err := s.Get(ctx, id)
	if err != nil {
		return nil, passOver(err)
	}
	if j := entry.Value; !j.State.Final() || j.State == machine.Removing {
		return nil, nil
	}
	if entry.Value.Parent != nil {
		if gone, err := s.orphaned(ctx, entry.Value); err != nil || !gone {
			return nil, err
		}
	}
	t := streams.Timer{Purpose: streams.PurposeExpiry, At: s.expires(entry.Value), Queue: queue, Local: local}
	has, err := s.Timers.Has(ctx, t)
	if err == nil && !has {
		err = s.Timers.Set(ctx, t)
	}
	if err != nil || has {
		return nil, errors.Join(err)
	}
	return []Lack{LackExpiry}, nil
}

// expires returns when the record of a job that has ended goes. One of an earlier
// build may not say.
func (s *Store) expires(j machine.Job) time.Time {
	if j.Expires.IsZero() {
		s.seal(&j, s.kept(j))
	}
	return j.Expires
}

// Glance is what a scan of the jobs bucket sees of a record: its headers.
type Glance struct {
	State       machine.State
	Kind        string
	Node        string // that runs it, or empty
	Incarnation uint64
	Cancel      bool
	// Due, StartBy and Deadline are the times of the timers that it needs, in
	// ms since 1970, or 0.
	Due, StartBy, Deadline int64
	// Expires is set if the record goes by itself.
	Expires bool
	// Pinned is set if the job is for the node Pin, or, if that is empty, for one
	// that was not found yet.
	Pinned         bool
	Pin            string
	PinIncarnation uint64
	// PinRule is set if other nodes may have it; PinElse is what becomes of it
	// when its node is gone.
	PinRule bool
	PinElse machine.Else
	Parent  string // the job that it is a part of, or empty
	// Turn is the schedule for whose turn the job waits, or empty.
	Turn string
}

// LookAt reads the headers of a record.
func LookAt(h nats.Header) Glance {
	_, pinned := h[headerPin]
	return Glance{
		Pinned: pinned, Pin: h.Get(headerPin), PinIncarnation: uint64(number(h, headerPinIncarnation)), PinRule: h.Get(headerPinRule) != "",
		PinElse: machine.Else(h.Get(headerPinElse)), Parent: h.Get(headerParent), Turn: h.Get(headerTurn),
		State: machine.State(h.Get(headerState)), Kind: h.Get(headerKind), Node: h.Get(headerNode), Incarnation: uint64(number(h, headerIncarnation)),
		Cancel: h.Get(headerCancel) != "", Due: number(h, headerDue), StartBy: number(h, headerStartBy), Deadline: number(h, headerDeadline),
		Expires: h.Get(nats.MsgTTLHdr) != "",
	}
}

// number reads a header that is a number, or 0.
func number(h nats.Header, key string) int64 {
	n, err := strconv.ParseInt(h.Get(key), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
