package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
)

const (
	// connectTimeout is how long one server may take to let the program in.
	connectTimeout = 3 * time.Second
	// openPatience is how long one try to open the namespace may take.
	openPatience = 20 * time.Second
	// openPause is how long to wait before the next one.
	openPause = 250 * time.Millisecond
)

// connect opens the namespace, for as long as that takes: NATS may be away.
func connect(ctx context.Context, opts engine.Options) (eng *engine.Engine, shut func(), err error) {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), append(engine.ConnectOptions(),
		nats.Name("millrace e2e "+os.Getenv("MILLRACE_E2E_PROCESS")),
		nats.Timeout(connectTimeout),
		nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { slog.Warn("nats reports", "err", err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { slog.Warn("nats is away", "err", err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { slog.Info("nats is back", "server", nc.ConnectedUrlRedacted()) }),
	)...)
	if err != nil {
		return nil, nil, err
	}
	for {
		opening, cancel := context.WithTimeout(ctx, openPatience)
		eng, err := engine.Connect(opening, nc, opts)
		cancel()
		if err == nil {
			return eng, func() { eng.Close(); nc.Close() }, nil
		}
		slog.Warn("namespace is opened again", "err", err)
		select {
		case <-ctx.Done():
			nc.Close()
			return nil, nil, context.Cause(ctx)
		case <-time.After(openPause):
		}
	}
}
