package store

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/streams"
)

// Ending tells the owner that a child has ended, so that it need not look. It may
// be lost, and may come twice or late.
type Ending struct {
	Parent string `json:"parent"`
	// Part names the child among its parent's. Empty: the parent has children
	// since a moment ago, or has them again.
	Part string `json:"part,omitempty"`
	// State is how the child ended.
	State machine.State `json:"state,omitempty"`
}

// endingEnvelope is what an ending travels in.
var endingEnvelope = streams.Envelope{Type: "ending", Version: 1}

// EndingSubject is where the owner hears of [Ending]s, on core NATS. An ID of a
// node has no dot, so no node answers there.
func EndingSubject(ns streams.Namespace) string { return ns.CtlSubject("owner.part") }

// ReadEnding reads what was published on [EndingSubject].
func ReadEnding(msg *nats.Msg) (Ending, error) {
	var e Ending
	if err := hear(msg, endingEnvelope, &e); err != nil {
		return Ending{}, err
	}
	return e, nil
}

// tellOwner publishes an ending. Nobody may be there to hear it.
func (s *Store) tellOwner(e Ending) error {
	return s.say(EndingSubject(s.ns), endingEnvelope, e)
}

// say publishes a value, in an envelope, to whoever listens.
func (s *Store) say(subject string, envelope streams.Envelope, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.pub.Conn().PublishMsg(&nats.Msg{Subject: subject, Header: envelope.Header(), Data: data})
}

// hear reads what was published by say.
func hear(msg *nats.Msg, envelope streams.Envelope, value any) error {
	sent, err := streams.Decode(msg.Header, msg.Data, envelope.Type, envelope.Version)
	if err == nil {
		err = json.Unmarshal(sent.Body, value)
	}
	if err != nil {
		return fmt.Errorf("store: read %s: %w", envelope.Type, err)
	}
	return nil
}
