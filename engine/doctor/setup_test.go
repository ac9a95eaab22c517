package doctor_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/internal/natstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// natstest keeps it running on purpose.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// process is an engine with a connection of its own.
type process struct {
	*engine.Engine
	t    testing.TB
	link *natstest.Link
	nc   *nats.Conn
}

// start opens an engine as a node of an ID.
func start(t testing.TB, srv *server.Server, node string, opts ...nats.Option) *process {
	t.Helper()
	p := &process{t: t, link: natstest.NewLink(t, srv, nil, ">")}
	p.nc = p.link.Connect(t, opts...)
	eng, err := engine.Connect(t.Context(), p.nc, engine.Options{Node: node, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	p.Engine = eng
	return p
}

// run runs a loop until the test ends, or until stop is called.
func (p *process) run(loop func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = loop(ctx) })
	stop = func() { cancel(); running.Wait() }
	p.t.Cleanup(stop)
	return stop
}

// work runs a worker that never is the owner.
func (p *process) work(defs ...engine.Definition) (stop func()) {
	p.t.Helper()
	worker, err := p.Worker(engine.WorkerOptions{NoOwner: true}, defs...)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.run(worker.Run)
}

// submit makes a job of a kind.
func (p *process) submit(kind, id string, opts ...engine.SubmitOptions) {
	p.t.Helper()
	o := engine.SubmitOptions{}
	if len(opts) > 0 {
		o = opts[0]
	}
	o.ID = id
	if _, err := p.Submit(p.t.Context(), kind, nil, o); err != nil {
		p.t.Fatal(err)
	}
}

// instant is a job that succeeds at once.
func instant(kind string) *engine.Job[any, any] {
	return engine.NewJob(kind, func(context.Context, any) (any, error) { return nil, nil })
}

// endless is a job that ends when it is told to.
func endless(kind string) *engine.Job[any, any] {
	return engine.NewJob(kind, func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
}

// examine returns what is found over a connection.
func examine(t testing.TB, nc *nats.Conn, opts doctor.Options) []doctor.Finding {
	t.Helper()
	found, err := doctor.Examine(t.Context(), nc, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if strings.Contains(f.String(), "\n") {
			t.Errorf("more than one line: %q", f)
		}
	}
	return found
}

// ill returns what is not fine.
func ill(found []doctor.Finding) (list []string) {
	for _, f := range found {
		if f.Level != doctor.Fine {
			list = append(list, string(f.Level)+" "+f.Check+": "+f.String())
		}
	}
	return list
}
