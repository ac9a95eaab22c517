package enginetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/streams"
)

// Env is what a test runs in: a NATS server, a namespace and the processes that
// use it. Its methods fail the test instead of returning errors. They are for
// the goroutine of the test.
type Env struct {
	t         *testing.T
	opts      Options
	ns        streams.Namespace
	client    *Process
	processes map[string]*Process // by node

	srv   *server.Server // nil while it is stopped
	dir   string         // where it keeps its data
	stuck bool           // goroutines are left at the end
}

// Engine returns the engine of the test itself: neither a worker nor one that
// serves, and no node. Submit jobs to it.
func (env *Env) Engine() *engine.Engine { return env.client.Engine() }

// Conn returns the connection to NATS of the test itself: publish events with
// it, and answer requests.
func (env *Env) Conn() *nats.Conn { return env.client.Conn() }

// Client returns the process of the test itself, for faults of those who submit.
func (env *Env) Client() *Process { return env.client }

// Worker starts a process that runs the jobs of the definitions. Its node is
// "worker-1", the next one's "worker-2".
func (env *Env) Worker(defs ...engine.Definition) *Process {
	env.t.Helper()
	return env.WorkerWith(engine.WorkerOptions{}, defs...)
}

// WorkerWith is like [Env.Worker], with options.
func (env *Env) WorkerWith(opts engine.WorkerOptions, defs ...engine.Definition) *Process {
	env.t.Helper()
	return env.start(env.next("worker"), func(ctx context.Context, eng *engine.Engine) error {
		worker, err := eng.Worker(opts, defs...)
		if err != nil {
			return err
		}
		return worker.Run(ctx)
	})
}

// Serve starts a process that keeps the namespace. One runs from the start, as
// "serve-1", unless [Options.NoServe] is set; the next one is "serve-2".
func (env *Env) Serve() *Process {
	env.t.Helper()
	return env.start(env.next("serve"), func(ctx context.Context, eng *engine.Engine) error {
		return eng.Serve(ctx)
	})
}

// Start starts a process whose node has the given ID, to do what program does
// with its engine. The context ends when the process is stopped; program then
// has to return. An error that it returns fails the test.
func (env *Env) Start(node string, program func(context.Context, *engine.Engine) error) *Process {
	env.t.Helper()
	return env.start(node, program)
}

// Process returns the process of a node, as it is named by [Process.Node] and
// [engine.JobInfo].
func (env *Env) Process(node string) *Process {
	env.t.Helper()
	p := env.processes[node]
	if p == nil {
		env.t.Fatalf("enginetest: find process %s: there is none: there are %v", node, env.nodes())
	}
	return p
}

// Advance lets time pass, and returns when everything is done that can be done
// by then. With 0 it waits for that alone.
func (env *Env) Advance(d time.Duration) {
	env.t.Helper()
	if d < 0 {
		env.t.Fatalf("enginetest: advance: %v is in the past", d)
	}
	if d > 0 {
		<-time.After(d)
	}
	synctest.Wait()
}

// next returns the ID of the next node of a role.
func (env *Env) next(role string) string {
	n := 1
	for _, node := range env.nodes() {
		if strings.HasPrefix(node, role+"-") {
			n++
		}
	}
	return fmt.Sprint(role, "-", n)
}

// nodes returns the names of the processes, in order.
func (env *Env) nodes() []string {
	var list []string
	for node := range env.processes {
		list = append(list, node)
	}
	slices.Sort(list)
	return list
}
