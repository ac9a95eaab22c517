package main

import (
	"context"
	"errors"
	"testing"
)

// The end of a drain timeout is the second request to stop, and nothing if there
// was one: it is never the third, which exits at once.
func TestHurry(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]int{"asked once": 1, "asked twice": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			i := &interrupts{cancel: cancel, abort: func() { panic("exits at once") }}
			mild := i.first()
			for range asked {
				i.ask()
			}
			i.hurry()
			i.hurry()
			<-mild
			<-ctx.Done()
			if err := context.Cause(ctx); !errors.Is(err, errInterrupted) {
				t.Errorf("the context ended with %v, want that it was interrupted", err)
			}
		})
	}
}
