package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

// minLevel is JetStream's API level of nats-server 2.12.
const minLevel = 2

// checkServer says plainly what a server lacks.
func checkServer(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	info, err := js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("streams: %s has no JetStream: start nats-server with -js, or use an account that has it", nc.ConnectedUrlRedacted())
	case err != nil:
		return fmt.Errorf("streams: ask %s for JetStream: %w", nc.ConnectedUrlRedacted(), explain(err))
	}
	return checkLevel(info.API.Level, nc.ConnectedUrlRedacted(), nc.ConnectedServerVersion())
}

func checkLevel(level int, url, version string) error {
	if level < minLevel {
		return fmt.Errorf("streams: %s runs nats-server %s, which is too old: 2.12 or later is needed", url, version)
	}
	return nil
}

// A requester is a context that hides its deadline from jetstream, which would
// wait until then for an answer. Without one each request has a time-out of its
// own.
type requester struct{ context.Context }

// Deadline hides the deadline. The context still ends then.
func (requester) Deadline() (time.Time, bool) { return time.Time{}, false }

// deniedError is why a context ends when the server denies something.
type deniedError struct {
	ns  Namespace
	err error
}

func (e *deniedError) Error() string {
	return fmt.Sprintf("streams: set up namespace %s: %s: let this user do that", e.ns, strings.ReplaceAll(e.err.Error(), "\n", " "))
}

func (e *deniedError) Unwrap() error { return e.err }

// untilDenied returns a context for requests about the assets of a namespace,
// and ends it when the server denies one of them. The server tells that to the
// connection alone, and lets the request run into its time-out.
func untilDenied(ctx context.Context, ns Namespace, nc *nats.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	before, done := nc.LastError(), make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			pause(ctx)
			err := nc.LastError()
			if err != before && ns.concerns(err) { //nolint:errorlint // the same denial again is another one
				cancel(&deniedError{ns, err})
			}
		}
	}()
	return requester{ctx}, func() { cancel(nil); <-done }
}

// concerns reports whether err denies something that has to do with the assets.
func (n Namespace) concerns(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) &&
		(strings.Contains(err.Error(), "mr_"+string(n)+"_") || strings.Contains(err.Error(), "$JS.API.INFO"))
}

// denied returns what was denied, if that ended ctx, and err otherwise.
func denied(ctx context.Context, err error) error {
	if why := (*deniedError)(nil); err != nil && errors.As(context.Cause(ctx), &why) {
		return why
	}
	return err
}

// explain adds to an error of the server what can be done about it.
func explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, publish.ErrUnknown) {
		return fmt.Errorf("no answer from JetStream: it has no leader, or this user may not use $JS.API.> or its inbox (%w)", err)
	}
	return err
}

// transient reports whether err may not come again: an answer or the lease was
// lost, or a cluster has no leader at the moment.
func transient(err error) bool {
	for _, passing := range []error{
		errLeaderless, publish.ErrUnknown, publish.ErrUnsent, kv.ErrLeaseLost, kv.ErrConflict, context.DeadlineExceeded, nats.ErrTimeout,
		nats.ErrReconnectBufExceeded, nats.ErrDisconnected, jetstream.ErrNoStreamResponse,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	const noLeader = 10008
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == noLeader
}

// tooFewServers reports whether a stream cannot have that many replicas here.
func tooFewServers(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	const notClustered, noPeers = 10074, 10005
	return api.ErrorCode == notClustered || api.ErrorCode == noPeers
}
