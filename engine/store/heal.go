package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
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
	LackRemoval Lack = "removal" // whoever removed it died: removed
)

// Heal looks for what the job needs that is not there, makes up for it, and
// returns what it was. A job that is not there lacks nothing. Everything is read
// from the leader; what happens to the job meanwhile makes a harmless item or
// timer of what is done here.
//
// The node of a running job that shall end is told again, which heals nothing.
func (s *Store) Heal(ctx context.Context, id string) ([]Lack, error) {
	queue, local, err := name.SplitJobID(id)
	if err != nil {
		return nil, err
	}
	entry, err := s.Get(ctx, id)
	if err != nil {
		return nil, passOver(err)
	}
	lacks, err := s.lacks(ctx, entry, queue, local)
	for _, lack := range lacks {
		if err == nil {
			err = s.make(ctx, lack, entry, queue, local)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store: heal job %s: %w", id, err)
	}
	return lacks, nil
}

// lacks is the table of what must exist for a job.
func (s *Store) lacks(ctx context.Context, entry Entry, queue, local string) (lacks []Lack, err error) {
	j := entry.Value
	switch {
	case j.State == machine.Removing:
		return []Lack{LackRemoval}, nil
	case j.State.Final():
		return nil, nil // see HealExpiry
	case j.State == machine.Running && j.Cancel != nil:
		if err := s.tell(ctx, entry); err != nil {
			return nil, err
		}
	}
	for _, t := range j.Timers() {
		has, err := s.Timers.Has(ctx, streams.Timer{Purpose: streams.Purpose(t.Purpose), At: t.At, Queue: queue, Local: local})
		if err != nil {
			return nil, err
		}
		if !has && t.Purpose == machine.Due && !t.At.After(s.Clock.Now()) {
			has, err = s.Work.Offered(ctx, queue, local) // it has fired
		}
		if err != nil {
			return nil, err
		}
		if !has {
			return []Lack{LackTimer}, nil // one lack at a time: all timers are set again
		}
	}
	if j.State.Delayed() {
		return nil, nil
	}
	has, err := s.Work.Offered(ctx, queue, local)
	if err != nil || has {
		return nil, err
	}
	if j.State == machine.Running {
		if needed, err := s.needsItem(ctx, entry); err != nil || !needed {
			return nil, err
		}
	}
	return []Lack{LackItem}, nil
}

// needsItem reports whether a running job without an item has nobody who runs
// it: an item makes a worker look at the delivery table.
func (s *Store) needsItem(ctx context.Context, entry Entry) (bool, error) {
	lease := entry.Value.Lease
	answer, err := s.Asker.Ask(ctx, nodes.Claim{Node: lease.Node, Incarnation: lease.Incarnation, Job: entry.Key, Token: lease.Token})
	if err != nil {
		return false, err
	}
	return answer != nodes.Yes && answer != nodes.Silent, nil
}

// make makes up for what a job lacks.
func (s *Store) make(ctx context.Context, lack Lack, entry Entry, queue, local string) error {
	switch lack {
	case LackItem:
		return s.Work.Offer(ctx, item(entry, queue, local))
	case LackTimer:
		return s.carryOut(ctx, machine.SetTimers, entry)
	case LackRemoval:
		return s.carryOut(ctx, machine.Erase, entry)
	case LackExpiry:
	}
	return fmt.Errorf("nothing makes up for %q", lack)
}

// HealExpiry sets the expiry timer of a job that has ended and whose record does
// not expire by itself, unless it is set.
func (s *Store) HealExpiry(ctx context.Context, id string) ([]Lack, error) {
	queue, local, err := name.SplitJobID(id)
	if err != nil {
		return nil, err
	}
	entry, err := s.Get(ctx, id)
	if err != nil {
		return nil, passOver(err)
	}
	keep := retention(entry.Value.State)
	if keep == 0 {
		return nil, nil
	}
	t := streams.Timer{Purpose: streams.PurposeExpiry, At: entry.Value.Finished.Add(keep), Queue: queue, Local: local}
	has, err := s.Timers.Has(ctx, t)
	if err == nil && !has {
		err = s.Timers.Set(ctx, t)
	}
	if err != nil || has {
		return nil, errors.Join(err)
	}
	return []Lack{LackExpiry}, nil
}

// Glance is what a scan of the jobs bucket sees of a record: its headers.
type Glance struct {
	State       machine.State
	Node        string // that runs it, or empty
	Incarnation uint64
	Cancel      bool
	// Due, StartBy and Deadline are the times of the timers that it needs, in
	// ms since 1970, or 0.
	Due, StartBy, Deadline int64
	// Expires is set if the record goes by itself.
	Expires bool
}

// LookAt reads the headers of a record.
func LookAt(h nats.Header) Glance {
	return Glance{
		State: machine.State(h.Get(headerState)), Node: h.Get(headerNode), Incarnation: uint64(number(h, headerIncarnation)),
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
