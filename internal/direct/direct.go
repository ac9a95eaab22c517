// Package direct reads many messages of a JetStream stream with one request,
// which any replica answers and for which no consumer is made.
//
// Start reading at [Get.All].
package direct

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

const (
	// Max is how many messages the server returns for one multi-get.
	Max = 1024

	// Patience is how long a direct get waits for its next message.
	Patience = 5 * time.Second
)

// ErrTooMany says that more than [Max] messages match a multi-get.
var ErrTooMany = errors.New("too many results")

// ErrLost says that a message was deleted while a multi-get read the others. It
// can be tried again.
var ErrLost = errors.New("a message was deleted meanwhile")

// Get says which messages to read: the last ones on the subjects of MultiLast,
// or so many of those on NextBySubject as Batch says. Subjects may have
// wildcards.
type Get struct {
	Seq           uint64   `json:"seq,omitempty"` // the first sequence to look at
	Batch         int      `json:"batch,omitempty"`
	MaxBytes      int      `json:"max_bytes,omitempty"` // of a batch, which ends with the message that exceeds it
	NextBySubject string   `json:"next_by_subj,omitempty"`
	MultiLast     []string `json:"multi_last,omitempty"`
}

// All calls got with every message that fits, in the order of sequences, however
// many requests it takes. It returns [ErrTooMany] if a multi-get finds too many.
func (g Get) All(ctx context.Context, pub *publish.Publisher, stream string, got func(publish.Message)) error {
	for {
		last, more, err := g.Page(ctx, pub, stream, got)
		if err != nil || !more {
			return err
		}
		g.Seq = last + 1
	}
}

// Page makes one request and calls got with what comes, in the order of
// sequences. It returns the last sequence, and whether there are more behind it.
func (g Get) Page(ctx context.Context, pub *publish.Publisher, stream string, got func(publish.Message)) (last uint64, more bool, err error) {
	request, err := json.Marshal(g)
	if err != nil {
		return 0, false, err
	}
	nc := pub.Conn()
	inbox := nc.NewInbox()
	msgs := make(chan *nats.Msg, max(1024, g.Batch)+1) // all that one request can bring
	sub, err := nc.ChanSubscribe(inbox, msgs)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := nc.PublishRequest(pub.API("DIRECT.GET."+stream), inbox, request); err != nil {
		return 0, false, err
	}
	for {
		msg, err := nextMsg(ctx, msgs)
		if err != nil {
			return 0, false, err
		}
		if status := msg.Header.Get("Status"); status != "" {
			return g.end(status, msg, last)
		}
		m, err := parse(msg)
		if err != nil {
			return 0, false, err
		}
		last = m.Sequence
		got(m)
	}
}

// end says what the status at the end of the answers means.
func (g Get) end(status string, msg *nats.Msg, last uint64) (uint64, bool, error) {
	description := msg.Header.Get("Description")
	switch {
	case status == "204":
		pending, err := strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64)
		return last, pending > 0 && last > 0, err
	case status == "404" && g.MultiLast != nil && description == "Message Not Found":
		return 0, false, ErrLost
	case status == "404":
		return last, false, nil
	case status == "413":
		return 0, false, ErrTooMany
	}
	return 0, false, fmt.Errorf("status %s %s", status, description)
}

func nextMsg(ctx context.Context, msgs <-chan *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, nats.ErrTimeout)
	defer cancel()
	select {
	case msg := <-msgs:
		if msg.Header.Get("Status") == "503" {
			return nil, jetstream.ErrNoStreamResponse
		}
		return msg, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// parse reads one message.
func parse(msg *nats.Msg) (publish.Message, error) {
	sequence, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return publish.Message{}, fmt.Errorf("read sequence: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return publish.Message{}, fmt.Errorf("read time: %w", err)
	}
	return publish.Message{
		Subject: msg.Header.Get(jetstream.SubjectHeader), Sequence: sequence, Time: at, Header: msg.Header, Data: msg.Data,
	}, nil
}
