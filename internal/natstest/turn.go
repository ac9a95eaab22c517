package natstest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// impatience is less than it takes until a request is given up.
const impatience = 100 * time.Millisecond

// GivesUp fails the test unless ask ends with its context while another call of it has the
// turn and waits for an answer. It is for a bubble, and link holds back what is asked first.
func GivesUp(t testing.TB, link *Link, ask func(context.Context) error) {
	t.Helper()
	first := make(chan error, 1)
	go func() { first <- ask(t.Context()) }()
	synctest.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), impatience)
	defer cancel()
	began := time.Now()
	err := ask(ctx)
	if took := time.Since(began); took != impatience {
		t.Errorf("who waits for a turn until his time is up ends after %v: %v", took, err)
	}
	link.Release()
	if err := <-first; err != nil {
		t.Errorf("who has the turn: %v", err)
	}
}

// HoldFirst holds back the first write after armed is closed, or the first one if armed
// is nil.
func HoldFirst(armed <-chan struct{}) func(Write) Fault {
	held := false
	return func(Write) Fault {
		if armed != nil {
			select {
			case <-armed:
			default:
				return Pass
			}
		}
		if held {
			return Pass
		}
		held = true
		return Hold
	}
}
