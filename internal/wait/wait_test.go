package wait_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/wait"
)

func TestFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !wait.For(t.Context(), time.Hour) || time.Since(began) != time.Hour {
			t.Errorf("it went on after %v, want an hour", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		if wait.For(ctx, time.Hour) || time.Since(began) != time.Minute {
			t.Errorf("it went on after %v, want the end after a minute", time.Since(began))
		}
		if wait.For(ctx, 0) || !wait.For(t.Context(), 0) {
			t.Error("with nothing to wait for, it did not look at the context")
		}
	})
}
