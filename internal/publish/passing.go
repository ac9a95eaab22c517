package publish

import (
	"context"
	"errors"
	"net/http"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// awayErrors are what is said while NATS is away, or what should answer is.
var awayErrors = []error{
	ErrUnsent, ErrUnknown, context.DeadlineExceeded,
	nats.ErrTimeout, nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
}

// Passing reports whether err says only that NATS is away or busy: the message was
// not sent or not answered, nobody was there to answer, or JetStream says that it
// is unavailable, as without a leader. The same may succeed a little later, unless
// the publisher or its connection was closed.
func Passing(err error) bool {
	for _, closed := range []error{ErrClosed, nats.ErrConnectionClosed, nats.ErrConnectionDraining} {
		if errors.Is(err, closed) {
			return false
		}
	}
	for _, away := range awayErrors {
		if errors.Is(err, away) {
			return true
		}
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
}
