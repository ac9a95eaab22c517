// Command embedded is a whole installation in one process: a NATS server, the
// engine, a worker, and a program that submits a job and waits for its result.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

// Shout is a job: a kind, and a handler with typed input and result.
var Shout = engine.NewJob("text.shout", func(_ context.Context, text string) (string, error) {
	return strings.ToUpper(text) + "!", nil
})

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "millrace-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out, err := shout(ctx, dir, "hello")
	if err != nil {
		return err
	}
	fmt.Println(out)
	return nil
}

// shout runs everything that one job needs, on a server that keeps its data in
// dir, and stops it again.
func shout(ctx context.Context, dir, text string) (string, error) {
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir})
	if err != nil {
		return "", err
	}
	defer srv.Close()
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	eng, err := engine.Connect(ctx, nc)
	if err != nil {
		return "", err
	}
	defer eng.Close()
	worker, err := eng.Worker(engine.WorkerOptions{Slots: 10}, Shout)
	if err != nil {
		return "", err
	}
	defer start(ctx, worker.Run)()

	job, err := Shout.Submit(ctx, eng, text, engine.SubmitOptions{ID: "greeting-1"})
	if err != nil {
		return "", err
	}
	return job.Wait(ctx)
}

// start runs a loop in the background. The function that it returns ends the
// loop and waits for it.
func start(ctx context.Context, loop func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := loop(ctx); err != nil {
			slog.Error("loop ended", "err", err)
		}
	}()
	return func() { cancel(); <-done }
}
