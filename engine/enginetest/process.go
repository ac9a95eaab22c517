package enginetest

import (
	"context"
	"sync"
	"testing/synctest"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// Process is a program that uses the engine, in a process of its own as far as
// NATS can tell. Its methods are for the goroutine of the test.
type Process struct {
	env     *Env
	node    string
	program func(context.Context, *engine.Engine) error
	life    *life

	mu     sync.Mutex
	decide func(Write) Fault
	writes []Write
}

// life is a process from its start to its end.
type life struct {
	link *natstest.Link
	nc   *nats.Conn
	eng  *engine.Engine

	stop  context.CancelFunc
	ended chan struct{} // closed when the program has returned
	err   error         // what it returned, once ended is closed

	mu    sync.Mutex
	over  bool // it was stopped or killed
	muted bool // nobody listens to it any more
}

// start starts a process under a new ID.
func (env *Env) start(node string, program func(context.Context, *engine.Engine) error) *Process {
	env.t.Helper()
	if env.processes[node] != nil {
		env.t.Fatalf("enginetest: start %s: there is a process of that ID: choose another, or restart that one", node)
	}
	p := &Process{env: env, node: node, program: program}
	p.begin()
	env.processes[node] = p
	return p
}

// begin gives the process another life, and lets it do what it can at once.
func (p *Process) begin() {
	t := p.env.t
	t.Helper()
	if p.env.srv == nil {
		t.Fatalf("enginetest: start %s: the server is stopped: start it first", p.node)
	}
	l := &life{ended: make(chan struct{})}
	judge := func(w natstest.Write) natstest.Fault { return p.judge(l, w) }
	l.link = natstest.NewLink(t, p.env.srv, judge, counted(p.env.ns)...)
	l.nc = l.link.Connect(t, engine.ConnectOptions()...)
	opts := p.env.opts
	eng, err := engine.Connect(t.Context(), l.nc, engine.Options{
		Namespace: opts.Namespace, Node: p.node, Lease: opts.Lease, Logger: p.logger(l),
	})
	if err != nil {
		t.Fatalf("enginetest: start %s: %v", p.node, err)
	}
	l.eng = eng
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	l.stop = stop
	p.life = l
	t.Cleanup(func() {
		p.env.mute()
		_ = l.end() // how a program ends after its test is of no interest
	})
	go p.run(ctx, l)
	synctest.Wait()
}

// mute lets nobody listen to any process any more.
func (env *Env) mute() {
	for _, p := range env.processes {
		p.life.mute()
	}
}

// run runs the program for one life.
func (p *Process) run(ctx context.Context, l *life) {
	defer close(l.ended)
	if p.program == nil {
		<-ctx.Done()
		return
	}
	l.err = p.program(ctx, l.eng)
	if l.err != nil && !l.isOver() {
		p.env.t.Errorf("enginetest: %s ended by itself: %v", p.node, l.err)
	}
}

// end stops the program, waits for it, and returns what it returned.
func (l *life) end() error {
	l.conclude()
	l.stop()
	<-l.ended
	l.eng.Close()
	l.nc.Close()
	return l.err
}

// conclude notes that the life is over: the program may return.
func (l *life) conclude() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

func (l *life) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// mute notes that the life is not to be heard any more.
func (l *life) mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.muted = true, true
}

func (l *life) isMuted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.muted
}

// Node returns the ID of the process among the nodes. The test itself, which is
// no node, is "client".
func (p *Process) Node() string { return p.node }

// Engine returns the engine of the process. After [Process.Restart] it is
// another one.
func (p *Process) Engine() *engine.Engine { return p.life.eng }

// Conn returns the connection to NATS of the process. After [Process.Restart] it
// is another one.
func (p *Process) Conn() *nats.Conn { return p.life.nc }

// Stop ends the process in good order, as SIGTERM would that comes twice, and
// waits for that. A worker hands back what it has not started, and what runs when
// its handler obeys. [engine.Worker.Drain] leaves handlers alone. It fails the
// test if the process ends with an error, such as handlers that go on after the
// grace period.
func (p *Process) Stop() {
	p.env.t.Helper()
	if err := p.living("stop").end(); err != nil {
		p.env.t.Errorf("enginetest: stop %s: %v", p.node, err)
	}
	synctest.Wait()
}

// Kill ends the process without a word, as SIGKILL would: nothing that it writes
// from now on reaches NATS, and nothing reaches it. Its handlers cannot be
// stopped. Their contexts end when its node has lost its lease, and at the end
// of the test at the latest.
func (p *Process) Kill() {
	p.env.t.Helper()
	l := p.living("kill")
	l.mute()
	l.link.Down()
	synctest.Wait()
}

// Restart starts the process again, under the same ID, after it was stopped or
// killed. The node of a killed one is there again when the lease of its former
// life has ended.
func (p *Process) Restart() {
	p.env.t.Helper()
	if l := p.life; !l.isOver() {
		p.env.t.Fatalf("enginetest: restart %s: it runs: stop or kill it first", p.node)
	}
	p.begin()
}

// Freeze stalls the connection of the process without breaking it, as SIGSTOP
// or a network that loses every packet would: what it writes waits for
// [Process.Thaw], and so does what it should hear. Its handlers go on.
func (p *Process) Freeze() {
	p.env.t.Helper()
	p.living("freeze").link.Freeze()
}

// Thaw ends what [Process.Freeze] began. What waited arrives, late and in order.
func (p *Process) Thaw() {
	p.env.t.Helper()
	p.living("thaw").link.Thaw()
	synctest.Wait()
}

// Cut breaks the connection of the process. It connects again by itself.
func (p *Process) Cut() {
	p.env.t.Helper()
	p.living("cut").link.Cut()
	synctest.Wait()
}

// Down cuts the process off from NATS, until [Process.Up].
func (p *Process) Down() {
	p.env.t.Helper()
	p.living("cut off").link.Down()
	synctest.Wait()
}

// Up ends what [Process.Down] began. The process connects by itself, within a
// second.
func (p *Process) Up() {
	p.env.t.Helper()
	p.living("reconnect").link.Up()
}

// living returns the life of the process, which must not be over.
func (p *Process) living(what string) *life {
	p.env.t.Helper()
	if p.life.isOver() {
		p.env.t.Fatalf("enginetest: %s %s: it does not run: restart it first", what, p.node)
	}
	return p.life
}
