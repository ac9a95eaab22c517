package publish

import (
	"context"
	"errors"
	"net/http"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NoPeers is said of a stream or a consumer for which a cluster has too few servers.
// One that came back a moment ago, or has another route, does not count until it has
// told the leader again what room it has.
const NoPeers jetstream.ErrorCode = 10005

// awayErrors are what is said while NATS is away, or what should answer is.
var awayErrors = []error{
	ErrUnsent, ErrUnknown, context.DeadlineExceeded,
	nats.ErrTimeout, nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
}

// Passing reports whether err says only that NATS is away or busy: the message was
// not sent or not answered, nobody was there to answer, or JetStream says that it
// is unavailable, as without a leader, or that it finds too few servers for a stream
// or a consumer. The same may succeed a little later, unless the publisher or its
// connection was closed.
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
	return errors.As(err, &api) && (api.Code == http.StatusServiceUnavailable || api.ErrorCode == NoPeers)
}
