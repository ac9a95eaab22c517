package main

import (
	"context"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
)

// connectTimeout is how long one server may take to let the program in.
const connectTimeout = 3 * time.Second

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
	opts.Patience = math.MaxInt64
	eng, err = engine.Connect(ctx, nc, opts)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return eng, func() { eng.Close(); nc.Close() }, nil
}
