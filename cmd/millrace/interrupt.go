package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// errInterrupted is why the context of a command ended.
var errInterrupted = errors.New("interrupted")

// interruptible returns a context that ends when the process is asked to stop.
// At the second request it calls abort and exits at once.
func interruptible(abort func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		<-signals
		cancel(errInterrupted)
		<-signals
		abort()
		os.Exit(failed)
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}
