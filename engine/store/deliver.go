package store

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/bug"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Runner is the node that takes deliveries. It knows what runs on it.
type Runner interface {
	// Begin notes that the node may run a job under a token from now on, and
	// is called before a claim is sent, and again before each further try. It
	// returns the node's identity.
	Begin(job, token string, d *streams.Delivery) (node string, incarnation uint64)
	// End notes that there is no claim, or that it was refused: one that may
	// still land has not ended.
	End(job, token string)
	// Runs reports whether the node runs the job under the token.
	Runs(job, token string) bool
	// Adopt makes d the delivery that the attempt keeps alive and
	// acknowledges.
	Adopt(job, token string, d *streams.Delivery)
	// Handles reports whether there is a handler for a kind, and how many
	// failures it allows (0: as the job says).
	Handles(kind string) (maxAttempts int, ok bool)
	// Identity returns the node and its present incarnation.
	Identity() (node string, incarnation uint64)
}

// Deliver does with an item what the delivery table says. If that makes the
// node run the job it returns the job, running under token, and ok is true;
// otherwise the delivery has been answered. The token is new and random.
//
// An item that is gone drives nothing, and holds no place of a queue with a limit. So a
// job whose record was read since the delivery is claimed only if its item is there:
// this process may have stood still while others ran the job and were done with the
// item. An item goes only after the record has moved, so what was read before is
// claimed at its revision or not at all. In the moment in which its acknowledgement is
// on its way it is still there: what is claimed then holds no place. That there is a
// newer item is no reason to wait for that one, which may be at the end of a long queue.
//
// A child reads its parent before it is claimed, so that one that was made too late,
// or whose parent has ended meanwhile, is cancelled and does not start. If the parent
// ends between that and the claim, whoever ended it finds the child running, and tells
// its node. A part that is lost with its node's incarnation is so for the next one too.
//
// If the process dies before the claim is stored, the item comes back. If it
// dies afterwards, the item comes back too, and meets a running job whose node
// does not know it or is gone.
func (s *Store) Deliver(ctx context.Context, d *streams.Delivery, token string, r Runner) (entry Entry, ok bool, err error) {
	id := name.JobID(d.Queue, d.Local)
	defer func() {
		if !ok {
			r.End(id, token)
		}
	}()
	entry, read, err := s.believe(ctx, id, d)
	for try := 0; err == nil; try++ {
		if try > 1 {
			if err = s.pause(ctx, try); err != nil {
				break
			}
		}
		action := s.decide(ctx, entry, d, r)
		maxAttempts, handled := r.Handles(entry.Value.Kind)
		switch {
		case !read && (!action.claims() || !handled):
			entry, err = s.read(ctx, id) // the item may be of the past
		case !action.claims():
			return entry, false, s.dispose(ctx, action.Action, entry, d, r)
		case !handled: // its timer is owed then
			entry, err = s.move(ctx, entry, machine.Postponed{At: s.Clock.Now(), Random: rand.Float64(), LostClaim: action.lostClaim})
		default:
			if read { // somebody may be done with the item
				err = s.mustHold(ctx, d)
			}
			if err != nil {
				break
			}
			entry, err = s.claim(ctx, action, entry, claim{d, token, maxAttempts, r})
			if err == nil && entry.Value.Held(token) {
				return entry, true, nil
			}
			// Somebody else moved the job, or the take-over ended it.
		}
		read = true
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, errItemGone) {
		return Entry{}, false, d.Ack()
	}
	return Entry{}, false, errors.Join(err, d.Nak(s.lease/3))
}

// errItemGone says that the item of a delivery is not there any more.
var errItemGone = errors.New("store: the item is gone")

// mustHold returns errItemGone if the item of a delivery is not there any more.
func (s *Store) mustHold(ctx context.Context, d *streams.Delivery) error {
	holds, err := s.Work.Holds(ctx, d)
	if err == nil && !holds {
		err = errItemGone
	}
	return err
}

// believe returns the job as the item has it, which is good enough to try a
// claim, or else reads it.
func (s *Store) believe(ctx context.Context, id string, d *streams.Delivery) (entry Entry, read bool, err error) {
	j, err := decodeBody(d.Record)
	if err == nil && j.ID == id && (j.State == machine.Pending || j.State.Delayed()) {
		return Entry{Key: id, Value: j, Revision: d.Revision}, false, nil
	}
	entry, err = s.read(ctx, id)
	return entry, true, err
}

// action is what the table says, and why.
type action struct {
	machine.Action
	lostClaim bool // the attempt to be replaced never ran
}

func (a action) claims() bool {
	return a.Action == machine.TakeIt || a.Action == machine.TakeAgain || a.Action == machine.Seize
}

// decide looks the delivery up in the table. What the item says is enough to
// try a claim; everything else was read from the leader.
func (s *Store) decide(ctx context.Context, entry Entry, d *streams.Delivery, r Runner) action {
	node, incarnation := r.Identity()
	delivery := machine.Delivery{Driver: driver(d), Node: node, Incarnation: incarnation, Due: d.Due, Now: s.Clock.Now()}
	lease := entry.Value.Lease
	if lease != nil {
		delivery.Runs = lease.Node == node && r.Runs(entry.Key, lease.Token)
	}
	first := entry.Value.Deliver(delivery)
	if first != machine.Ask {
		return action{first, first == machine.TakeAgain}
	}
	if bug.TakeOver { // whoever runs it has been silent for the acknowledgement wait
		return action{Action: machine.Seize}
	}
	answer, err := s.Asker.Ask(ctx, nodes.Claim{Node: lease.Node, Incarnation: lease.Incarnation, Job: entry.Key, Token: lease.Token})
	if err != nil {
		s.log.DebugContext(ctx, "node could not be asked", "job", entry.Key, "node", lease.Node, "err", err)
		return action{Action: machine.Leave}
	}
	return action{entry.Value.Judge(delivery, answers[answer]), answer == nodes.NoSame}
}

// answers translates what is known of a node into the terms of the table.
var answers = map[nodes.Answer]machine.Answer{
	nodes.Silent: machine.Silent,
	nodes.Yes:    machine.Runs,
	nodes.No:     machine.Denies,
	nodes.NoSame: machine.Unaware,
	nodes.Dead:   machine.Dead,
}

// dispose answers a delivery that starts nothing.
func (s *Store) dispose(ctx context.Context, a machine.Action, entry Entry, d *streams.Delivery, r Runner) error {
	switch a {
	case machine.Settle:
		if err := s.Owe(ctx, entry); err != nil {
			return errors.Join(err, d.Nak(s.lease/3))
		}
		return d.Ack()
	case machine.Drop:
		return d.Ack()
	case machine.Adopt:
		r.Adopt(entry.Key, entry.Value.Lease.Token, d)
		return nil
	default:
		return d.Nak(s.lease / 3)
	}
}

// claim is one try to take a job.
type claim struct {
	delivery    *streams.Delivery
	token       string
	maxAttempts int
	runner      Runner
}

// forbidden returns what is to be stored in the place of a claim, if a job must not be
// claimed by the incarnation that has its delivery: a child for which nobody waits,
// unless it was told to end already and the claim does that; a part that was lost
// before the delivery came; and a tick that its schedule does not let run any more.
func (s *Store) forbidden(ctx context.Context, j machine.Job, incarnation uint64) (machine.Event, error) {
	if lost, err := s.deserted(ctx, j, incarnation); err != nil || lost {
		return machine.Deserted{At: s.Clock.Now()}, err
	}
	if ev, err := s.unwanted(ctx, j); ev != nil || err != nil {
		return ev, err
	}
	if j.Parent == nil || j.Cancel != nil {
		return nil, nil
	}
	waits, err := s.awaited(ctx, j)
	if err != nil || waits {
		return nil, err
	}
	return s.disowned(j), nil
}

// claim replaces entry by the same job running here, and returns the job as it
// is stored now. It runs here if it is held under the token: somebody else may
// have moved it instead, a take-over may end it, and so does who must not claim it.
func (s *Store) claim(ctx context.Context, a action, entry Entry, c claim) (Entry, error) {
	_, incarnation := c.runner.Identity()
	if ev, err := s.forbidden(ctx, entry.Value, incarnation); err != nil {
		return entry, err
	} else if ev != nil {
		return s.move(ctx, entry, ev)
	}
	node, incarnation := c.runner.Begin(entry.Key, c.token, c.delivery)
	if bug.AckFirst { // and be sure of it
		_ = errors.Join(c.delivery.Ack(), s.pub.Conn().Flush())
	}
	return s.move(ctx, entry, a.event(machine.Claimant{
		Lease:       machine.Lease{Node: node, Incarnation: incarnation, Token: c.token, Driver: driver(c.delivery)},
		Fence:       entry.Revision,
		At:          s.Clock.Now(),
		MaxAttempts: c.maxAttempts,
	}))
}

func (a action) event(c machine.Claimant) machine.Event {
	switch a.Action {
	case machine.TakeAgain:
		return machine.Reclaimed{Claimant: c}
	case machine.Seize:
		return machine.TakenOver{Claimant: c, LostClaim: a.lostClaim}
	default:
		return machine.Claimed{Claimant: c}
	}
}

func driver(d *streams.Delivery) machine.Driver {
	return machine.Driver{Stream: d.Stream, Sequence: d.Sequence}
}
