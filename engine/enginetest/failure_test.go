package enginetest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

// A failure is a test that has to fail, and the line that says why.
type failure struct {
	name, want string
	opts       enginetest.Options
	test       func(t *testing.T, env *enginetest.Env)
}

// asking is set for the process in which the failures fail.
const asking = "MILLRACE_TEST_FAILURES"

// What a test cannot go on with fails it, in one line that says what to do.
func TestFailures(t *testing.T) {
	if os.Getenv(asking) != "" {
		for _, f := range failures {
			t.Run(f.name, func(t *testing.T) { enginetest.Run(t, f.test, f.opts) })
		}
		t.Run("parallel", func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, func(*testing.T, *enginetest.Env) {})
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFailures$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), asking+"=1")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("got %v:\n%s", err, out)
	}
	texts := append(failures, failure{name: "parallel", want: "a test with a virtual clock cannot be parallel: remove t.Parallel"})
	for _, f := range texts {
		name := "TestFailures/" + strings.ReplaceAll(f.name, " ", "_") + " "
		if !strings.Contains(string(out), "--- FAIL: "+name) {
			t.Errorf("%s does not fail", f.name)
		}
		if !strings.Contains(string(out), f.want) {
			t.Errorf("%s does not say %q", f.name, f.want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

var (
	noop = engine.NewJob("noop", func(context.Context, int) (int, error) { return 0, nil })
	dead = engine.NewJob("dead", func(context.Context, int) (int, error) {
		return 0, engine.Fail(errors.New("it cannot work"))
	})
	slow = engine.NewJob("slow", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	deaf = engine.NewJob("deaf", func(context.Context, int) (int, error) {
		<-time.After(time.Minute)
		return 0, nil
	})
	stuck = engine.NewJob("stuck", func(context.Context, int) (int, error) {
		select {}
	})
)

var id1 = engine.SubmitOptions{ID: "1"}

var failures = []failure{
	{
		name: "no worker", want: "await noop.1: it does not end: pending for 5m0s, attempt 0, failures 0; no node takes from queue noop: start a worker with kind noop",
		opts: enginetest.Options{Patience: 5 * time.Minute},
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Await(enginetest.Submit(env, noop, 1, id1).ID)
		},
	}, {
		name: "handler goes on", want: "await slow.1: it does not end: running for 5m0s, attempt 1, failures 0, on worker-1",
		opts: enginetest.Options{Patience: 5 * time.Minute},
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Worker(slow)
			env.Await(enginetest.Submit(env, slow, 1, id1).ID)
		},
	}, {
		name: "another state", want: "await noop.1: it is succeeded, and will not be cancelled",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Worker(noop)
			env.AwaitState(enginetest.Submit(env, noop, 1, id1).ID, "cancelled")
		},
	}, {
		name: "no such state", want: `await noop.1: there is no state "done": use one of [`,
		test: func(_ *testing.T, env *enginetest.Env) { env.AwaitState("noop.1", "done") },
	}, {
		name: "no such job", want: "get noop.7: engine: get job: ",
		test: func(_ *testing.T, env *enginetest.Env) { env.Await("noop.7") },
	}, {
		name: "no result", want: "result: job dead.1 failed: it cannot work",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Worker(dead)
			enginetest.Result(env, enginetest.Submit(env, dead, 1, id1))
		},
	}, {
		name: "bad submit", want: "enginetest: submit noop: ",
		test: func(_ *testing.T, env *enginetest.Env) {
			enginetest.Submit(env, noop, 1, engine.SubmitOptions{ID: "a.b"})
		},
	}, {
		name: "no server", want: "submit noop: the server is stopped: start it first",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.StopServer()
			enginetest.Submit(env, noop, 1)
		},
	}, {
		name: "cut off", want: "get noop.1: the client is cut off: let it connect first",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Client().Down()
			env.Get("noop.1")
		},
	}, {
		name: "start without server", want: "start worker-1: the server is stopped: start it first",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.KillServer()
			env.Worker(noop)
		},
	}, {
		name: "server runs", want: "start server: it runs: stop or kill it first",
		test: func(_ *testing.T, env *enginetest.Env) { env.StartServer() },
	}, {
		name: "no such process", want: "find process worker-1: there is none: there are [client serve-1]",
		test: func(_ *testing.T, env *enginetest.Env) { env.Process("worker-1").Kill() },
	}, {
		name: "ID is taken", want: "start serve-1: there is a process of that ID: choose another, or restart that one",
		test: func(_ *testing.T, env *enginetest.Env) { env.Start("serve-1", nil) },
	}, {
		name: "dead process", want: "freeze serve-1: it does not run: restart it first",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Process("serve-1").Kill()
			env.Process("serve-1").Freeze()
		},
	}, {
		name: "live process", want: "restart serve-1: it runs: stop or kill it first",
		test: func(_ *testing.T, env *enginetest.Env) { env.Process("serve-1").Restart() },
	}, {
		name: "program fails", want: "enginetest: billing ended by itself: no money",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Start("billing", func(context.Context, *engine.Engine) error { return errors.New("no money") })
		},
	}, {
		name: "no such write", want: "strike write 0 of client with lose answer: count writes from 1",
		test: func(_ *testing.T, env *enginetest.Env) { env.Client().AtWrite(0, enginetest.LoseAnswer) },
	}, {
		name: "no such fault", want: "strike write 1 of client with fault 77: count writes from 1, and use one of the faults",
		test: func(_ *testing.T, env *enginetest.Env) { env.Client().AtWrite(1, 77) },
	}, {
		name: "past", want: "advance: -1s is in the past",
		test: func(_ *testing.T, env *enginetest.Env) { env.Advance(-time.Second) },
	}, {
		name: "options", want: "lease is 1.5s: use whole seconds",
		opts: enginetest.Options{Lease: 1500 * time.Millisecond},
		test: func(*testing.T, *enginetest.Env) {},
	}, {
		name: "deaf handler", want: "stop worker-1: engine: worker: handlers did not end",
		test: func(_ *testing.T, env *enginetest.Env) {
			worker := env.Worker(deaf)
			env.AwaitState(enginetest.Submit(env, deaf, 1).ID, "running")
			worker.Stop()
		},
	}, {
		name: "handler without end", want: "end: a goroutine goes on for an hour after the test: let it end, such as with the context of its handler: github.com/millrace/millrace/engine/enginetest_test.",
		test: func(_ *testing.T, env *enginetest.Env) {
			env.Worker(stuck)
			env.AwaitState(enginetest.Submit(env, stuck, 1).ID, "running")
		},
	},
}
