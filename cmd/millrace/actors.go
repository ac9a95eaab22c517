package main

import (
	"context"

	"github.com/oklog/run"
)

// loop runs until its context ends, or until it cannot go on.
type loop func(context.Context) error

// together runs loops until one of them returns, or ctx ends; it ends all of
// them then and waits for them. It returns what the first one did. What the
// loops share is closed afterwards, by the caller.
func together(ctx context.Context, loops ...loop) error {
	var g run.Group
	for _, l := range loops {
		g.Add(actor(ctx, l))
	}
	return g.Run()
}

// actor adapts a loop to a [run.Group].
func actor(ctx context.Context, l loop) (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	return func() error { return l(ctx) }, func(err error) { cancel(err) }
}
