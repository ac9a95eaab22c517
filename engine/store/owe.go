package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Owe carries out what a stored job owes. It returns an error if the job may
// still owe something; carrying it out again does no harm.
func (s *Store) Owe(ctx context.Context, entry Entry) error {
	for _, debt := range entry.Value.Owes() {
		if err := s.carryOut(ctx, debt, entry); err != nil {
			return fmt.Errorf("store: %s job %s: %w", debt, entry.Key, err)
		}
	}
	return nil
}

// elections is how often what a job owes is tried again though no leader of a stream
// answers: about ten seconds. A stream that is not there at all does not answer either.
const elections = 15

// pay is Owe, again and again while it fails in a way that passes, until ctx
// ends or the store is closed. A stream of a cluster may be about to get a leader.
func (s *Store) pay(ctx context.Context, entry Entry, passes func(error) bool) error {
	level := slog.LevelWarn // once
	for try := 0; ; try++ {
		err := s.Owe(ctx, entry)
		if err == nil && try > 0 {
			err = s.undo(ctx, entry)
		}
		passing := passes(err) || leaderless(err) && try < elections
		if err == nil || !passing || closed(err) || ctx.Err() != nil {
			return err
		}
		s.log.Log(ctx, level, "what a job owes is tried again", "job", entry.Key, "err", err)
		level = slog.LevelDebug
		if s.pause(ctx, try) != nil {
			return err
		}
	}
}

// undo takes back what was carried out late for a job that had ended meanwhile: an
// item that no worker comes for would stay.
func (s *Store) undo(ctx context.Context, entry Entry) error {
	if entry.Value.State.Final() {
		return nil
	}
	now, err := s.Get(ctx, entry.Key)
	if err != nil {
		return passOver(err)
	}
	if !now.Value.State.Final() || now.Value.State == machine.Removing {
		return nil
	}
	queue, local, err := name.SplitJobID(entry.Key)
	if err != nil {
		return err
	}
	return s.Work.Withdraw(ctx, home(now.Value), queue, local, now.Revision)
}

// passing reports whether err says only that NATS is away.
func passing(err error) bool {
	for _, away := range []error{publish.ErrUnsent, publish.ErrUnknown, nats.ErrReconnectBufExceeded, nats.ErrTimeout, context.DeadlineExceeded} {
		if errors.Is(err, away) {
			return true
		}
	}
	return false
}

// leaderless reports whether err says that no leader answered: of this stream, or of
// all of JetStream. It was not written.
func leaderless(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.As(err, &api) && api.ErrorCode == notAvailable
}

// notAvailable is the code with which JetStream says that it is temporarily unavailable.
const notAvailable jetstream.ErrorCode = 10008

// closed reports whether err says that NATS cannot come back: the engine or its
// connection was closed.
func closed(err error) bool {
	return errors.Is(err, publish.ErrClosed) || errors.Is(err, nats.ErrConnectionClosed)
}

func (s *Store) carryOut(ctx context.Context, debt machine.Debt, entry Entry) error {
	queue, local, err := name.SplitJobID(entry.Key)
	if err != nil {
		return err
	}
	switch debt {
	case machine.Offer:
		return s.Work.Offer(ctx, item(entry, queue, local))
	case machine.SetTimers:
		for _, t := range entry.Value.Timers() {
			if err := s.Timers.Set(ctx, timer(entry, t, queue, local)); err != nil {
				return err
			}
		}
		return nil
	case machine.Tell:
		return s.tell(ctx, entry)
	case machine.Withdraw:
		return s.Work.Withdraw(ctx, home(entry.Value), queue, local, entry.Revision)
	case machine.ClearTimers:
		return s.clearTimers(ctx, entry, queue, local)
	case machine.Announce:
		return s.announce(entry)
	case machine.Free:
		return s.free(ctx, entry.Value)
	case machine.Fork:
		return s.forkFirst(ctx, entry)
	case machine.Recall:
		return s.recall(ctx, entry)
	case machine.Count:
		of := entry.Value.Parent
		return s.tellOwner(Ending{Parent: of.ID, Part: of.Part, State: entry.Value.State})
	case machine.Signal:
		return s.signal(entry.Value)
	case machine.Erase:
		return s.erase(ctx, entry, queue, local)
	}
	return fmt.Errorf("unknown debt %q", debt)
}

// oweAsync carries out what a new job owes with everything in flight. It calls
// done once, from a goroutine that it must not block.
func (s *Store) oweAsync(entry Entry, done func(error)) {
	queue, local, err := name.SplitJobID(entry.Key)
	if err != nil {
		done(err)
		return
	}
	left := entry.Value.Timers()
	var next func(error)
	next = func(err error) {
		switch {
		case err == nil && len(left) == 0 && entry.Value.State == machine.Pending && !entry.Value.Homeless():
			s.Work.OfferAsync(item(entry, queue, local), done)
			return
		case err != nil:
			done(err)
			return
		case len(left) == 0 && entry.Value.Wait == machine.WaitTurn:
			done(s.signal(entry.Value))
			return
		case len(left) == 0:
			done(nil)
			return
		}
		t := left[0]
		left = left[1:]
		s.Timers.SetAsync(timer(entry, t, queue, local), next)
	}
	next(nil)
}

// home returns in whose mailbox the item of a job lies, or "" if it is for any worker
// of its queue.
func home(j machine.Job) string {
	if j.Pin == nil {
		return ""
	}
	return j.Pin.Node
}

// item returns what is offered for a stored job.
func item(entry Entry, queue, local string) streams.Item {
	j := entry.Value
	record := j.AppendJSON(make([]byte, 0, recordSize(j)))
	item := streams.Item{Queue: queue, Local: local, Node: home(j), Class: string(j.Class), Record: record, Revision: entry.Revision}
	if j.State.Delayed() {
		item.Due = j.Due
	}
	return item
}

// timer returns the timer to set for a stored job.
func timer(entry Entry, t machine.Timer, queue, local string) streams.Timer {
	set := streams.Timer{Purpose: streams.Purpose(t.Purpose), At: t.At, Queue: queue, Local: local}
	if t.Purpose == machine.Due {
		set.Item = item(entry, queue, local)
	}
	return set
}

// clearTimers deletes the timers that a job has left. One that stays does no
// harm, so nothing is tried again.
func (s *Store) clearTimers(ctx context.Context, entry Entry, queue, local string) error {
	for _, t := range entry.Value.Leftovers() {
		cleared := streams.Timer{Purpose: streams.Purpose(t.Purpose), At: t.At, Queue: queue, Local: local}
		if err := s.Timers.Cancel(ctx, cleared); err != nil {
			s.log.DebugContext(ctx, "timer stays until it is due", "job", entry.Key, "timer", t.Purpose, "err", err)
		}
	}
	return nil
}

// tell asks the node of a running job to end it. One that does not answer is
// told again by the reconciler, or is judged.
func (s *Store) tell(ctx context.Context, entry Entry) error {
	lease := entry.Value.Lease
	claim := nodes.Claim{Node: lease.Node, Incarnation: lease.Incarnation, Job: entry.Key, Token: lease.Token}
	if err := s.Asker.End(ctx, claim, entry.Value.Cancel.Cause); err != nil {
		s.log.DebugContext(ctx, "node could not be told", "job", entry.Key, "node", lease.Node, "err", err)
	}
	return nil
}

// erase deletes what a job owns, and then its record. Whoever dies in between
// leaves a record that still says so. Children go first: it is this record that says
// who they are.
func (s *Store) erase(ctx context.Context, entry Entry, queue, local string) error {
	if err := s.eraseChildren(ctx, entry); err != nil {
		return err
	}
	if err := s.Work.Withdraw(ctx, home(entry.Value), queue, local, entry.Revision); err != nil {
		return err
	}
	if err := s.clearTimers(ctx, entry, queue, local); err != nil {
		return err
	}
	if err := streams.EraseLog(ctx, s.pub, s.ns, entry.Key); err != nil {
		return err
	}
	if err := s.free(ctx, entry.Value); err != nil {
		return err
	}
	for _, b := range owned(entry.Value) {
		if err := s.blobs.Delete(ctx, b.Name); err != nil {
			return err
		}
	}
	return s.jobs.Remove(ctx, entry.Key, entry.Revision)
}

// announce tells those who wait that a job has ended. Nobody may be there to
// hear it, and it may be lost: whoever waits also reads.
func (s *Store) announce(entry Entry) error {
	h := streams.Envelope{Type: endedType, Version: endedVersion}.Header()
	h[headerState] = []string{string(entry.Value.State)}
	return s.pub.Conn().PublishMsg(&nats.Msg{Subject: s.ns.EndedSubject(entry.Key), Header: h})
}

// The envelope of an announcement.
const (
	endedType    = "ended"
	endedVersion = 1
)
