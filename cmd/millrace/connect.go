package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/wait"
)

// connectTimeout is how long one server may take to answer the first time.
const connectTimeout = 3 * time.Second

// logger returns the logger of commands that stay: text on standard error.
func (e *env) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(e.stderr, nil))
}

// quiet returns the logger of commands that answer: what they have to say is
// their output.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// connect opens the namespace on the server that the flags name. Commands that
// only look set opts.Existing, so that a mistaken name stays without effect. The
// caller calls shut when it is done.
func (e *env) connect(ctx context.Context, opts engine.Options) (eng *engine.Engine, shut func(), err error) {
	if opts.Logger == nil {
		opts.Logger = quiet()
	}
	opts.Domain = e.JSDomain
	nc, err := e.reach(ctx, opts)
	if err != nil {
		return nil, nil, err
	}
	eng, err = e.open(ctx, nc, opts)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return eng, func() { eng.Close(); nc.Close() }, nil
}

// reach dials, again for as long as the options say where no server answers. It
// returns at once when ctx ends.
func (e *env) reach(ctx context.Context, opts engine.Options) (*nats.Conn, error) {
	p := wait.Patience{
		For:     opts.Patience,
		Passing: func(err error) bool { return errors.As(err, new(unreached)) },
		Tell: func(err error) {
			opts.Logger.Warn("nats is not there yet: trying again", "server", e.where(), "err", err)
		},
	}
	var nc *nats.Conn
	tried := make(chan error, 1)
	go func() { // the dial under way knows no context: it is left when the process ends
		tried <- p.Try(ctx, func(context.Context) (err error) {
			nc, err = e.dial(opts.Logger)
			return err
		})
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case err := <-tried:
		return nc, err
	}
}

// unreached is why no server was reached that may be there a little later.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// away reports whether err, of a dial, says that no server answers properly now.
func away(err error) bool {
	var network net.Error
	if refused := (*net.OpError)(nil); errors.As(err, &refused) && refused.Op == "remote error" {
		return false // TLS: the server does not take this client
	}
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrMaxConnectionsExceeded) || errors.Is(err, nats.ErrMaxAccountConnectionsExceeded)
}

// stay is connect for commands that stay: they wait for NATS, however long that
// takes, until they are asked to stop. Nobody has to start things in some order.
func (e *env) stay(ctx context.Context, opts engine.Options) (eng *engine.Engine, shut func(), err error) {
	opts.Patience = math.MaxInt64
	return e.connect(ctx, opts)
}

// open opens the namespace on a connection. It gives up as soon as the server
// says that the user may not do something.
func (e *env) open(ctx context.Context, nc *nats.Conn, opts engine.Options) (*engine.Engine, error) {
	opts.Namespace, opts.Build = e.Namespace, version().Version
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	before := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel(err)
		} else if before != nil {
			before(nc, sub, err)
		}
	})
	defer nc.SetErrorHandler(before)
	eng, err := engine.Connect(ctx, nc, opts)
	if err != nil && nc.IsClosed() {
		return nil, fmt.Errorf("open namespace %s on %s: the server does not let this user in any more (%w): set --creds", e.Namespace, e.where(), nc.LastError())
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, nats.ErrPermissionViolation) {
		return nil, fmt.Errorf("open namespace %s on %s: %w", e.Namespace, e.where(), denied(cause))
	}
	return eng, err
}

// denied says in one line what the server denies this user.
func denied(err error) error {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	if _, what, ok := strings.Cut(text, "Permissions Violation for "); ok {
		what = strings.Replace(what, "Publish to", "publish to", 1)
		text = "this user may not " + strings.Replace(what, "Subscription to", "subscribe to", 1)
	}
	return fmt.Errorf("%s: grant it, or set --creds", text)
}

// dial connects to NATS, once: after that the connection comes back by itself,
// for ever.
func (e *env) dial(log *slog.Logger) (*nats.Conn, error) {
	opts := append(engine.ConnectOptions(),
		nats.Name("millrace"),
		nats.Timeout(connectTimeout),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("nats reports", "err", err) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				log.Warn("nats is away", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("nats is back", "server", nc.ConnectedUrlRedacted()) }),
	)
	if e.Creds != "" {
		if _, err := os.ReadFile(e.Creds); err != nil {
			return nil, usage(fmt.Errorf("read --creds: %w", err))
		}
		opts = append(opts, nats.UserCredentials(e.Creds))
	}
	nc, err := nats.Connect(e.Server, opts...)
	var parse *url.Error
	switch {
	case err == nil:
		return nc, nil
	case errors.As(err, &parse):
		return nil, usage(fmt.Errorf("--server: %w: write it like nats://127.0.0.1:4222", parse.Err))
	case errors.Is(err, nats.ErrNoServers):
		return nil, unreached{fmt.Errorf(`connect to %s: no server answers: start one with "millrace dev", or set --server`, e.where())}
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return nil, fmt.Errorf("connect to %s: the server does not know this user: set --creds, or put user and password in --server", e.where())
	}
	said := fmt.Errorf("connect to %s: %w: check --server", e.where(), err)
	if away(err) {
		return nil, unreached{said}
	}
	return nil, said
}

// where returns the servers that the flags name, without passwords.
func (e *env) where() string {
	servers := strings.Split(e.Server, ",")
	for i, s := range servers {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		if u, err := url.Parse(s); err == nil {
			s = u.Redacted()
		}
		servers[i] = s
	}
	return strings.Join(servers, ",")
}
