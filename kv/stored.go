package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/direct"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of messages in a bucket.
const (
	operationHeader = "KV-Operation"
	operationDelete = "DEL"
)

// stored is a message as the stream has it.
type stored struct {
	subject  string
	sequence uint64
	time     time.Time
	header   nats.Header
	data     []byte
}

// marker reports whether s stands for a key without a value.
func (s stored) marker() bool { return IsMarker(s.header) }

// IsMarker reports whether a message of a bucket, as it is stored or as it is
// republished, stands for a key without a value: it was deleted, purged or has
// expired.
func IsMarker(h nats.Header) bool {
	return h.Get(operationHeader) != "" || h.Get(jetstream.MarkerReasonHeader) != ""
}

// parseLeader reads an answer of $JS.API.STREAM.MSG.GET.
func parseLeader(data []byte) (stored, error) {
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return stored{}, fmt.Errorf("read answer: %w", err)
	}
	if answer.Error != nil {
		return stored{}, answer.Error
	}
	if answer.Message == nil {
		return stored{}, errors.New("read answer: no message")
	}
	m := answer.Message
	s := stored{subject: m.Subject, sequence: m.Sequence, time: m.Time, data: m.Data}
	if len(m.Header) > 0 {
		var err error
		if s.header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return stored{}, fmt.Errorf("read header: %w", err)
		}
	}
	return s, nil
}

// fromDirect returns a message of a direct get.
func fromDirect(m direct.Message) stored {
	return stored{m.Subject, m.Sequence, m.Time, m.Header, m.Data}
}
