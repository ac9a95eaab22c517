package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// errInterrupted is why the context of a command ended.
var errInterrupted = errors.New("interrupted")

// interrupts are the requests to stop that the process gets, as signals. The
// first one ends the context of the command, and the next one calls abort and
// exits at once. A command that can stop in peace has one more, before those, see
// [interrupts.first].
type interrupts struct {
	cancel context.CancelCauseFunc
	abort  func()

	mu    sync.Mutex
	mild  chan struct{} // closed at the first request; nil if that ends the context
	asked int
}

// interruptible returns a context that ends when the process is asked to stop.
func interruptible(abort func()) (ctx context.Context, i *interrupts, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	i = &interrupts{cancel: cancel, abort: abort}
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		for range signals {
			i.ask()
		}
	}()
	return ctx, i, func() { signal.Stop(signals); cancel(nil) }
}

// first returns a channel that is closed at the first request to stop. The
// second one ends the context then. If there was one already, the context has
// ended, and the channel stays open.
func (i *interrupts) first() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	mild := make(chan struct{})
	if i.asked == 0 {
		i.mild = mild
	}
	return mild
}

// ask takes a request to stop.
func (i *interrupts) ask() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.act()
}

// hurry is the second request to stop, unless there was one.
func (i *interrupts) hurry() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.asked < 2 {
		i.act()
	}
}

// act does what the next request asks for. The caller holds mu.
func (i *interrupts) act() {
	i.asked++
	steps := []func(){func() { i.cancel(errInterrupted) }, func() { i.abort(); os.Exit(failed) }}
	if i.mild != nil {
		steps = append([]func(){func() { close(i.mild) }}, steps...)
	}
	steps[min(i.asked, len(steps))-1]()
}

// unlessStopped returns why a command could not begin. That it was asked to stop
// before is no error.
func unlessStopped(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return nil
	}
	return err
}
