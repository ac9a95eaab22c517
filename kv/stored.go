package kv

import (
	"time"

	"github.com/millrace/millrace/internal/publish"
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

// storedOf returns a message that was read.
func storedOf(m publish.Message) stored {
	return stored{m.Subject, m.Sequence, m.Time, m.Header, m.Data}
}
