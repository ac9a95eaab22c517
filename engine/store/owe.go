package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
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

// pay is Owe, again and again while it fails in a way that passes, until ctx
// ends or the store is closed.
func (s *Store) pay(ctx context.Context, entry Entry, passes func(error) bool) error {
	for try := 0; ; try++ {
		err := s.Owe(ctx, entry)
		if err == nil || !passes(err) || closed(err) || ctx.Err() != nil {
			return err
		}
		s.log.WarnContext(ctx, "what a job owes is tried again", "job", entry.Key, "err", err)
		if s.pause(ctx, try) != nil {
			return err
		}
	}
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

// closed reports whether err says that NATS cannot come back: the engine or its
// connection was closed.
func closed(err error) bool {
	return errors.Is(err, publish.ErrClosed) || errors.Is(err, nats.ErrConnectionClosed)
}

func (s *Store) carryOut(ctx context.Context, debt machine.Debt, entry Entry) error {
	switch debt {
	case machine.Offer:
		item, err := item(entry)
		if err != nil {
			return err
		}
		return s.work.Offer(ctx, item)
	case machine.Withdraw:
		queue, local, err := name.SplitJobID(entry.Key)
		if err != nil {
			return err
		}
		return s.work.Withdraw(ctx, queue, local)
	case machine.Announce:
		return s.announce(entry)
	}
	return fmt.Errorf("unknown debt %q", debt)
}

// item returns what is offered for a stored job.
func item(entry Entry) (streams.Item, error) {
	queue, local, err := name.SplitJobID(entry.Key)
	if err != nil {
		return streams.Item{}, err
	}
	record := entry.Value.AppendJSON(make([]byte, 0, recordSize(entry.Value)))
	return streams.Item{Queue: queue, Local: local, Record: record, Revision: entry.Revision}, nil
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
