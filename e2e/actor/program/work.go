package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/engine"
)

// workCmd is a worker, as a user's program has one.
type workCmd struct {
	Queue       []string `required:"" help:"Queues to take jobs from, with commas."`
	Slots       int      `default:"10" help:"How many jobs at once."`
	Node        string   `required:"" help:"Stable ID of this process."`
	NoOwner     bool     `help:"Never be the owner."`
	HTTP        string   `name:"http" help:"Address for /readyz. Default: none."`
	MaxAttempts int      `help:"How many failures end a job. Default: the engine's."`

	Label map[string]string `help:"Labels of this process, such as zone=a."`
}

// errAsked is why a worker ends at once.
var errAsked = errors.New("the process was asked to end")

// Run runs jobs until SIGTERM. Then it drains, and a second one ends its handlers.
func (c workCmd) Run(ctx context.Context, a *actor.Actor) error {
	var eng atomic.Pointer[engine.Engine]
	shut, err := listen(c.HTTP, func() bool { e := eng.Load(); return e != nil && e.Joined() })
	if err != nil {
		return err
	}
	defer shut()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	drained := make(chan struct{})
	var group sync.WaitGroup
	defer func() { cancel(nil); group.Wait() }()
	group.Go(func() { heed(ctx, func() { close(drained) }, func() { cancel(errAsked) }) })

	opened, leave, err := c.open(ctx, drained)
	if errors.Is(err, errAsked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer leave()
	eng.Store(opened)
	worker, err := opened.Worker(engine.WorkerOptions{Slots: c.Slots, Queues: c.Queue, NoOwner: c.NoOwner}, c.definitions(a)...)
	if err != nil {
		return err
	}
	group.Go(func() {
		select {
		case <-drained:
			slog.Info("draining")
			_ = worker.Drain(ctx) // it can only say why ctx has ended
		case <-ctx.Done():
		}
	})
	slog.Info("worker started", "node", c.Node, "slots", c.Slots)
	return worker.Run(ctx)
}

// open opens the namespace, unless the process is asked to end before.
func (c workCmd) open(ctx context.Context, drained <-chan struct{}) (*engine.Engine, func(), error) {
	opening, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-drained:
			cancel(errAsked)
		case <-opening.Done():
		}
	})
	eng, shut, err := connect(opening, engine.Options{Node: c.Node, Labels: c.Label})
	cancel(nil)
	waiting.Wait()
	return eng, shut, err
}

// definitions returns the jobs of all queues.
func (c workCmd) definitions(a *actor.Actor) []engine.Definition {
	defs := make([]engine.Definition, len(c.Queue))
	for i, queue := range c.Queue {
		defs[i] = a.Job(queue, c.MaxAttempts)
	}
	return defs
}

// heed calls one function for each request to end, until ctx ends.
func heed(ctx context.Context, each ...func()) {
	asked := make(chan os.Signal, len(each))
	signal.Notify(asked, os.Interrupt, syscall.SIGTERM)
	for _, do := range each {
		select {
		case <-asked:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// listen answers /readyz on an address, if there is one, until shut is called. It
// logs where, as millrace worker does.
func listen(addr string, ready func() bool) (shut func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--http: %w: stop what uses the address, or choose another", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("readiness is not answered any more", "err", err)
		}
	})
	slog.Info("listening", "http", "http://"+ln.Addr().String())
	return func() { _ = srv.Close(); serving.Wait() }, nil
}
