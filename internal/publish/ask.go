package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Answer is an answer of the JetStream API: a struct that embeds [Refusal].
type Answer interface{ refused() error }

// Refusal is the part of an answer that says why not.
type Refusal struct {
	Error *jetstream.APIError `json:"error"`
}

func (r Refusal) refused() error {
	if r.Error == nil {
		return nil
	}
	return r.Error
}

// Ask sends a request, which is encoded as JSON unless it is nil, to the JetStream
// API, such as STREAM.INFO.orders, and reads the answer. A refusal is a
// *jetstream.APIError. It fails at once if the connection breaks, unlike the calls
// of the client library; an answer that cannot be read is [ErrUnknown] too.
func (p *Publisher) Ask(ctx context.Context, api string, request any, answer Answer) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return fmt.Errorf("publish: ask %s: %w", api, err)
		}
	}
	msg, err := p.Request(ctx, p.API(api), body)
	if err != nil {
		return err
	}
	return decode(msg.Data, answer)
}

func decode(data []byte, answer Answer) error {
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("publish: read answer: %w: %w", ErrUnknown, err)
	}
	return answer.refused()
}

// Codes of the JetStream API when there is nothing to read or delete.
const (
	codeNoMessage    jetstream.ErrorCode = 10037
	codeNoSequence   jetstream.ErrorCode = 10043
	codeDeleteFailed jetstream.ErrorCode = 10057
)

// Gone reports whether err says that there is nothing to read or to delete. The
// delete of a sequence whose whole block of the stream is gone fails with a
// general code, and tells the reason in words only.
func Gone(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case codeNoMessage, codeNoSequence:
		return true
	case codeDeleteFailed:
		return api.Description == "no message found" || api.Description == "stream store EOF"
	}
	return false
}
