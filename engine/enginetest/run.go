package enginetest

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// Options configures [Run]. The zero value of a field means its default.
type Options struct {
	// Namespace is the installation that the processes share. Default
	// "default".
	Namespace string
	// Lease is after how long a silent node is taken for dead, in whole
	// seconds. Default: that of the engine, 6s.
	Lease time.Duration
	// NoServe leaves out the process that serves from the start, "serve-1".
	NoServe bool
	// Patience is how long [Env.Await] waits for a job that neither changes nor
	// is due later. Default 1h.
	Patience time.Duration
	// Logger receives what the engine logs. Default: the output of the test,
	// which go test shows if the test fails.
	Logger *slog.Logger
}

func (o Options) withDefaults(t *testing.T) Options {
	if o.Namespace == "" {
		o.Namespace = string(streams.DefaultNamespace)
	}
	if o.Patience == 0 {
		o.Patience = time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return o
}

func (o Options) validate() error {
	errs := []error{name.Check("namespace", o.Namespace)}
	if o.Lease < 0 || o.Lease%time.Second != 0 {
		errs = append(errs, fmt.Errorf("lease is %v: use whole seconds", o.Lease))
	}
	if o.Patience < 0 {
		errs = append(errs, fmt.Errorf("patience is %v: use a positive one", o.Patience))
	}
	return errors.Join(errs...)
}

// Run gives test a NATS server and an engine of its own, on a virtual clock. It
// stops every process at the end, and fails the test if a goroutine of it goes
// on after that for an hour, on the same clock.
//
// The test must not call t.Parallel or t.Run.
func Run(t *testing.T, test func(t *testing.T, env *Env), opts ...Options) {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	var env *Env
	defer func() {
		if env != nil && env.stuck {
			_ = recover() // that goroutines are left: which ones is reported
			t.FailNow()
		}
	}()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		t.Helper()
		o = o.withDefaults(t)
		if err := o.validate(); err != nil {
			t.Fatalf("enginetest: run: %v", err)
		}
		env = newEnv(t, srv, o)
		test(t, env)
	})
}

// newEnv starts the processes that every test has.
func newEnv(t *testing.T, srv *server.Server, o Options) *Env {
	t.Helper()
	env := &Env{
		t: t, opts: o, ns: streams.Namespace(o.Namespace), processes: map[string]*Process{},
		srv: srv, dir: filepath.Dir(srv.JetStreamConfig().StoreDir),
	}
	t.Cleanup(env.end)
	env.client = env.start("client", nil)
	if !o.NoServe {
		env.Serve()
	}
	return env
}

// end stops the server, after all processes, and waits for what they have left.
func (env *Env) end() {
	if env.srv != nil {
		env.stopServer()
	}
	left := leftovers()
	for wait := time.Duration(0); len(left) > 0 && wait < time.Hour; wait += time.Minute {
		<-time.After(time.Minute)
		left = leftovers()
	}
	for _, at := range left {
		env.stuck = true
		env.t.Errorf("enginetest: end: a goroutine goes on for an hour after the test: let it end, such as with the context of its handler: %s", at)
	}
}
