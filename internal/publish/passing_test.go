package publish_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

// What may succeed a little later is told from what never will.
func TestPassing(t *testing.T) {
	t.Parallel()
	for want, list := range map[bool][]error{
		true: {
			publish.ErrUnsent, publish.ErrUnknown, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected,
			fmt.Errorf("publish: %w: %w", publish.ErrUnsent, nats.ErrReconnectBufExceeded), jetstream.ErrNoStreamResponse,
			&jetstream.APIError{Code: 503, ErrorCode: 10008}, fmt.Errorf("kv: read: %w", &jetstream.APIError{Code: 503, ErrorCode: 10004}),
			&jetstream.APIError{Code: 400, ErrorCode: 10005},
		},
		false: {
			nil, context.Canceled, errors.New("other"), &jetstream.APIError{Code: 400, ErrorCode: 10071}, jetstream.ErrStreamNotFound,
			nats.ErrConnectionClosed, fmt.Errorf("publish: %w: %w", publish.ErrUnsent, publish.ErrClosed),
			fmt.Errorf("publish: %w: %w", publish.ErrUnsent, nats.ErrConnectionClosed), nats.ErrPermissionViolation,
		},
	} {
		for _, err := range list {
			if got := publish.Passing(err); got != want {
				t.Errorf("%v: got %t, want %t", err, got, want)
			}
		}
	}
}
