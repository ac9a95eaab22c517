package engine

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// DeadEvent is an event that a trigger could not map to a job, or whose job
// could not be made. It is kept for 14 days.
type DeadEvent struct {
	Trigger string      `json:"trigger"`
	Reason  string      `json:"reason"` // one line
	Subject string      `json:"subject"`
	Data    []byte      `json:"-"` // in JSON: "data", as it is if it is JSON, otherwise as a string
	Header  nats.Header `json:"headers,omitempty"`
	// Stream, Sequence and Time are where and when the event was stored.
	Stream   string    `json:"stream"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Died is when it was given up.
	Died time.Time `json:"died_at"`
}

// DeadEvents returns events that could not be mapped, the most recent first: of
// one trigger, or of all for an empty name. A limit of 0 means 100.
func (e *Engine) DeadEvents(ctx context.Context, trigger string, limit int) ([]DeadEvent, error) {
	return nil, errors.New("engine: not built yet")
}
