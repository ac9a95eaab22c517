package kv

import (
	"errors"

	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNotFound is returned for a key that has no value.
	ErrNotFound = errors.New("not found")

	// ErrExists is returned when a key to be created has a value of somebody
	// else, or one of the caller's own whose answer was lost.
	ErrExists = errors.New("exists")

	// ErrConflict is returned when a key may not be at the revision that a write
	// expected. The error also wraps what the server said. It says "unknown"
	// and not "lost": see [Unknown].
	ErrConflict = errors.New("conflict")
)

// What JetStream answers when a conditional write does not go through.
const (
	codeWrongSequence jetstream.ErrorCode = 10071 // another write was there first
	codeInFlight      jetstream.ErrorCode = 10164 // another write may be there first
)

// Unknown reports whether err leaves open what is stored: a conflict, a
// time-out or a connection that broke. The caller reads, compares tokens and
// decides. Every other error of a write means that it was not stored.
func Unknown(err error) bool {
	return errors.Is(err, publish.ErrUnknown) || conflict(err)
}

// conflict reports whether err leaves open who wrote last. One replica answers
// the first code. Several may answer the second, also for a write whose own
// predecessor is not applied yet, and for a create over a marker.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeWrongSequence || api.ErrorCode == codeInFlight)
}
