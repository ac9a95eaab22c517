package enginetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

// A job that is due later is waited for, however little patience there is.
func TestAwaitDue(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		env.Worker(noop)
		start := time.Now()
		env.Await(enginetest.Submit(env, noop, 1, engine.SubmitOptions{Delay: time.Minute}).ID)
		if took := time.Since(start); took < time.Minute {
			t.Errorf("it took %v", took)
		}
	}, enginetest.Options{Patience: time.Second})
}

// So is one that changes again and again.
func TestAwaitChanges(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		every := engine.Retry{Delay: 5 * time.Second, Factor: 1}
		tries := engine.NewJob("tries", func(ctx context.Context, _ int) (int, error) {
			if n := engine.JobFrom(ctx).Attempt; n == 6 {
				return n, nil
			}
			return 0, errors.New("not yet")
		}, engine.JobOptions{MaxAttempts: 6, Retry: every})
		env.Worker(tries)
		if got := enginetest.Result(env, enginetest.Submit(env, tries, 1)); got != 6 {
			t.Errorf("got %d, want 6", got)
		}
	}, enginetest.Options{Patience: 2 * time.Second, NoServe: true})
}

// A test goes along with a job from state to state.
func TestAwaitState(t *testing.T) {
	enginetest.Run(t, func(_ *testing.T, env *enginetest.Env) {
		env.Worker(where)
		job := enginetest.Submit(env, where, 1, engine.SubmitOptions{Delay: time.Minute})
		for _, state := range []string{"scheduled", "running", "succeeded"} {
			env.AwaitState(job.ID, state)
		}
	})
}
