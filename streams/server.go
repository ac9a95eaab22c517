package streams

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
)

// minLevel is JetStream's API level of nats-server 2.12.
const minLevel = 2

// absentError says that no JetStream is reached from the server. That is so for a
// moment while a server ends, and for as long as those are away that have one.
type absentError string

func (e absentError) Error() string { return string(e) }

// absent says which JetStream is not there, and what to do about it.
func absent(url, domain string) error {
	if domain != "" {
		return absentError(fmt.Sprintf("streams: no such JetStream domain: %s does not reach %s: check --js-domain, the domain in the configuration of the hub, and the connection to it", url, domain))
	}
	return absentError(fmt.Sprintf("streams: %s has no JetStream: start nats-server with -js, use an account that has it, or, on a leaf node, name the domain of its hub with --js-domain", url))
}

// checkServer says plainly what a server lacks.
func checkServer(ctx context.Context, pub *publish.Publisher) error {
	url, domain := where(pub), pub.Domain()
	var info struct {
		publish.Refusal
		jetstream.AccountInfo
	}
	err := pub.Ask(ctx, "INFO", nil, &info) // by pub, which leaves a server that is cut off from the others
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return absent(url, domain)
	case err != nil:
		return fmt.Errorf("streams: ask %s for JetStream: %w", url, explain(err))
	}
	if domain != "" { // that server is another one
		return checkLevel(info.API.Level, "JetStream domain "+domain+" runs a nats-server")
	}
	return checkLevel(info.API.Level, url+" runs nats-server "+pub.Conn().ConnectedServerVersion()+",")
}

// where names the server that is asked, for errors.
func where(pub *publish.Publisher) string {
	return cmp.Or(pub.Conn().ConnectedUrlRedacted(), "NATS")
}

// checkLevel says that who runs a server needs a newer one.
func checkLevel(level int, who string) error {
	if level < minLevel {
		return fmt.Errorf("streams: %s which is too old: 2.12 or later is needed", who)
	}
	return nil
}

// probeTime is how long whoever has a namespace may take to say so. Who listens
// without an answer is no stream. A test on a crowded machine gives more.
var probeTime = requestTime / 2

// checkTaken refuses a namespace of which another JetStream has the subjects. On
// servers that are connected as leaf nodes, messages would go to both. That
// another has them is seen while it can be reached.
func checkTaken(ctx context.Context, ns Namespace, pub *publish.Publisher, js jetstream.JetStream) error {
	if _, err := js.Stream(ctx, ns.DeadStream()); !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err // what is left of this namespace has them
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, err := pub.Publish(ctx, &nats.Msg{
		Subject: ns.subject("dead.probe"),
		Header:  nats.Header{jetstream.ExpectedStreamHeader: {"no stream has a name with spaces"}},
	})
	if refused := (*jetstream.APIError)(nil); errors.As(err, &refused) {
		if _, err := js.Stream(ctx, ns.DeadStream()); err == nil {
			return nil // another process has made it meanwhile
		}
		return fmt.Errorf("streams: create namespace %s: another JetStream that can be reached from here has it, in a domain of its own: use that one with --js-domain, or choose another --namespace", ns)
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
func untilDenied(ctx context.Context, ns Namespace, pub *publish.Publisher) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	nc := pub.Conn()
	before, done := nc.LastError(), make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			wait.For(ctx, again)
			err := nc.LastError()
			if err != before && ns.concerns(err, pub) { //nolint:errorlint // the same denial again is another one
				cancel(&deniedError{ns, err})
			}
		}
	}()
	return requester{ctx}, func() { cancel(nil); <-done }
}

// concerns reports whether err denies something that has to do with the assets.
func (n Namespace) concerns(err error, pub *publish.Publisher) bool {
	return errors.Is(err, nats.ErrPermissionViolation) &&
		(strings.Contains(err.Error(), "mr_"+string(n)+"_") || strings.Contains(err.Error(), pub.API("INFO")))
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

// transient reports whether err may not come again: NATS is away or busy, or the
// lease was lost.
func transient(err error) bool {
	for _, ours := range []error{errLeaderless, errUnsettled, errGathering, kv.ErrLeaseLost, kv.ErrConflict} {
		if errors.Is(err, ours) {
			return true
		}
	}
	return errors.As(err, new(absentError)) || publish.Passing(err)
}

// notClustered says that the server is alone, so that a stream has one replica.
const notClustered jetstream.ErrorCode = 10074

// tooFewServers reports whether a stream cannot have that many replicas here.
func tooFewServers(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == notClustered || api.ErrorCode == publish.NoPeers)
}
