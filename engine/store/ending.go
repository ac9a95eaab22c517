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

// The envelope of an ending.
const (
	endingType    = "ending"
	endingVersion = 1
)

// EndingSubject is where the owner hears of [Ending]s, on core NATS. An ID of a
// node has no dot, so no node answers there.
func EndingSubject(ns streams.Namespace) string { return ns.CtlSubject("owner.part") }

// ReadEnding reads what was published on [EndingSubject].
func ReadEnding(msg *nats.Msg) (Ending, error) {
	var e Ending
	envelope, err := streams.Decode(msg.Header, msg.Data, endingType, endingVersion)
	if err == nil {
		err = json.Unmarshal(envelope.Body, &e)
	}
	if err != nil {
		return Ending{}, fmt.Errorf("store: read ending: %w", err)
	}
	return e, nil
}

// tellOwner publishes an ending. Nobody may be there to hear it.
func (s *Store) tellOwner(e Ending) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	h := streams.Envelope{Type: endingType, Version: endingVersion}.Header()
	return s.pub.Conn().PublishMsg(&nats.Msg{Subject: EndingSubject(s.ns), Header: h, Data: data})
}
