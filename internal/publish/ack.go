package publish

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Ack tells where a message was stored.
type Ack struct {
	Stream    string
	Sequence  uint64
	Duplicate bool // it was there already, under its Nats-Msg-Id
}

// parse reads the answer of a stream. It returns a *jetstream.APIError if the
// stream refused the message.
func (p *Publisher) parse(data []byte) (Ack, error) {
	return parseSlow(data)
}

// parseSlow reads any answer of a stream.
func parseSlow(data []byte) (Ack, error) {
	var answer struct {
		Stream    string              `json:"stream"`
		Sequence  uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
		Error     *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return Ack{}, fmt.Errorf("publish: read answer: %w: %w", ErrUnknown, err)
	}
	if answer.Error != nil {
		return Ack{}, answer.Error
	}
	if answer.Stream == "" {
		return Ack{}, fmt.Errorf("publish: read answer: %w: %w", ErrUnknown, jetstream.ErrInvalidJSAck)
	}
	return Ack{answer.Stream, answer.Sequence, answer.Duplicate}, nil
}
