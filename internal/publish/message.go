package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Message is a message as a stream has it.
type Message struct {
	Subject  string
	Sequence uint64
	Time     time.Time // when it was stored
	Header   nats.Header
	Data     []byte
}

// Query says which message of a stream to read: that with a sequence, the first
// one from there on whose subject matches Next, or the last one on the subject
// Last. Next and Last may have wildcards.
type Query struct {
	Sequence uint64 `json:"seq,omitempty"`
	Next     string `json:"next_by_subj,omitempty"`
	Last     string `json:"last_by_subj,omitempty"`
}

// Message reads a message of a stream from its leader. See [Gone] for one that is
// not there.
func (p *Publisher) Message(ctx context.Context, stream string, q Query) (Message, error) {
	var answer messageAnswer
	if err := p.Ask(ctx, "STREAM.MSG.GET."+stream, q, &answer); err != nil {
		return Message{}, err
	}
	return answer.message()
}

// Erase deletes the message of a stream that has a sequence. If it is gone, that
// is success. Where one message is to go this is cheaper than a purge.
func (p *Publisher) Erase(ctx context.Context, stream string, sequence uint64) error {
	request := struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"`
	}{sequence, true}
	err := p.Ask(ctx, "STREAM.MSG.DELETE."+stream, request, &Refusal{})
	if Gone(err) {
		return nil
	}
	return err
}

// messageAnswer is an answer of STREAM.MSG.GET.
type messageAnswer struct {
	Refusal
	Stored *struct {
		Subject  string    `json:"subject"`
		Sequence uint64    `json:"seq"`
		Header   []byte    `json:"hdrs"`
		Data     []byte    `json:"data"`
		Time     time.Time `json:"time"`
	} `json:"message"`
}

func (a messageAnswer) message() (Message, error) {
	s := a.Stored
	if s == nil {
		return Message{}, errors.New("publish: read answer: it has no message")
	}
	m := Message{Subject: s.Subject, Sequence: s.Sequence, Time: s.Time, Data: s.Data}
	if len(s.Header) > 0 {
		var err error
		if m.Header, err = nats.DecodeHeadersMsg(s.Header); err != nil {
			return Message{}, fmt.Errorf("publish: read header: %w", err)
		}
	}
	return m, nil
}
