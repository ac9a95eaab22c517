package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
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
	record, err := json.Marshal(entry.Value)
	if err != nil {
		return streams.Item{}, fmt.Errorf("encode: %w", err)
	}
	return streams.Item{Queue: queue, Local: local, Record: record, Revision: entry.Revision}, nil
}

// headerRevision is the revision of an announced record.
const headerRevision = "Mr-Revision"

// maxAnnounced is how large a record may be to be announced as a whole.
const maxAnnounced = 32 << 10

// announce tells those who wait that a job has ended. Nobody may be there to
// hear it, and it may be lost: whoever waits also reads.
func (s *Store) announce(entry Entry) error {
	h, body, err := encode(entry.Value)
	if err != nil {
		return err
	}
	if len(body) > maxAnnounced {
		body = nil
	}
	h[headerRevision] = []string{strconv.FormatUint(entry.Revision, 10)}
	return s.pub.Conn().PublishMsg(&nats.Msg{Subject: s.ns.EndedSubject(entry.Key), Header: h, Data: body})
}

// ParseEnded reads the announcement of a job's end. It returns false if the job has
// to be read, because the announcement does not hold the record.
func ParseEnded(msg *nats.Msg, id string) (Entry, bool) {
	if len(msg.Data) == 0 {
		return Entry{}, false
	}
	j, err := decode(msg.Header, msg.Data)
	revision, err2 := strconv.ParseUint(msg.Header.Get(headerRevision), 10, 64)
	if err != nil || err2 != nil || j.ID != id || !j.State.Final() {
		return Entry{}, false
	}
	return kv.Entry[machine.Job]{Key: id, Value: j, Revision: revision}, true
}
