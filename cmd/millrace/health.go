package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

// listen returns a listener on an address that a flag gives, or none for none.
func listen(flag, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, usage(fmt.Errorf("%s %q is no address: write it like 127.0.0.1:8222", flag, addr))
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: stop what uses the address, or choose another", flag, err)
	}
	return ln, nil
}

func address(ln net.Listener) string {
	if ln == nil {
		return "none"
	}
	return "http://" + ln.Addr().String()
}

// httpGrace is how long requests in progress may take at the end.
const httpGrace = 2 * time.Second

// health answers /healthz while the process works, /readyz while it can do what
// it is for, and /metrics with what is registered, if there is a registry.
// Without a listener it does nothing.
func health(ln net.Listener, ready func() bool, registry *prometheus.Registry) loop {
	if ln == nil {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "alive\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready: NATS is away, or the node is not registered", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	if registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	}
	return func(ctx context.Context) error { return serveHTTP(ctx, ln, mux) }
}

// readiness is whether a command can do what it is for. Before it has an engine, and
// is a node, it cannot.
type readiness struct{ eng atomic.Pointer[engine.Engine] }

func (r *readiness) of(eng *engine.Engine) { r.eng.Store(eng) }

func (r *readiness) ready() bool {
	eng := r.eng.Load()
	return eng != nil && eng.Joined()
}

// serveHTTP answers requests until ctx ends, then gives those in progress some
// grace to finish.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("answer HTTP on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpGrace)
	defer cancel()
	if err := srv.Shutdown(ending); errors.Is(err, context.DeadlineExceeded) {
		_ = srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer HTTP on %s: %w", ln.Addr(), err)
	}
	return nil
}

// checkNode refuses a node ID that is no token.
func checkNode(id string) error {
	if id == "" {
		return nil
	}
	return usage(name.Check("node", id))
}
