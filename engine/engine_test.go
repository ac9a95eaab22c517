package engine_test

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server's access-time ticker runs for as long as the process does.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// connect opens an engine on a server, with a connection of its own.
func connect(t testing.TB, srv *server.Server, opts ...engine.Options) *engine.Engine {
	t.Helper()
	opt := engine.Options{Logger: voice(t)}
	for _, opt = range opts {
		opt.Logger = cmp.Or(opt.Logger, voice(t))
	}
	eng, err := engine.Connect(t.Context(), natstest.Connect(t, srv), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	return eng
}

// voice logs to the output of the test, which is shown if it fails.
func voice(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// work runs a worker until the test ends, or until the function that it
// returns is called.
func work(t testing.TB, eng *engine.Engine, opts engine.WorkerOptions, defs ...engine.Definition) (stop func()) {
	t.Helper()
	worker, err := eng.Worker(opts, defs...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := worker.Run(ctx); err != nil {
			t.Errorf("worker: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// process is an engine in a process of its own, as far as NATS can tell: it has
// its own connection, through a link.
type process struct {
	*engine.Engine
	t    testing.TB
	link *natstest.Link
	nc   *nats.Conn
}

// What processes write whose fate tests decide.
const (
	jobWrites  = "$KV.mr_default_jobs.>"
	workWrites = "mr.default.work.>"
	everything = ">"
)

// start opens an engine as a node of an ID. Decide says what becomes of its
// writes on the subjects; nil lets all of them pass.
func start(t testing.TB, srv *server.Server, node string, decide func(natstest.Write) natstest.Fault, subjects ...string) *process {
	t.Helper()
	if len(subjects) == 0 {
		subjects = []string{jobWrites, workWrites}
	}
	p := &process{t: t, link: natstest.NewLink(t, srv, decide, subjects...)}
	p.nc = p.link.Connect(t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	eng, err := engine.Connect(t.Context(), p.nc, engine.Options{Node: node, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	p.Engine = eng
	return p
}

// run runs a worker. Stop ends it, and returns what Run did; the test does so at
// its end.
func (p *process) run(opts engine.WorkerOptions, defs ...engine.Definition) (stop func() error) {
	p.t.Helper()
	worker, err := p.Worker(opts, defs...)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended error
	var running sync.WaitGroup
	running.Go(func() { ended = worker.Run(ctx) })
	stop = func() error { cancel(); running.Wait(); return ended }
	p.t.Cleanup(func() { _ = stop() })
	return stop
}

// ledger is what handlers did, by their own account.
type ledger struct {
	mu     sync.Mutex
	starts map[string][]string // by job: the nodes that started it
	ends   map[string]int      // by job: how many handlers returned
	now    int                 // handlers that run
	most   int                 // that ran at once
}

func newLedger() *ledger { return &ledger{starts: map[string][]string{}, ends: map[string]int{}} }

// enter notes the start of a handler; the function that it returns notes its
// end.
func (l *ledger) enter(ctx context.Context) (leave func()) {
	j := engine.JobFrom(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starts[j.ID] = append(l.starts[j.ID], j.Node)
	l.now++
	l.most = max(l.most, l.now)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ends[j.ID]++
		l.now--
	}
}

// running returns how many handlers run.
func (l *ledger) running() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// started returns the nodes that started a job.
func (l *ledger) started(id string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.starts[id])
}

// submit creates jobs of a kind with the IDs 1 to n, and returns their IDs.
func submit(t testing.TB, eng *engine.Engine, kind string, n int) (ids []string) {
	t.Helper()
	for i := range n {
		job, err := eng.Submit(t.Context(), kind, nil, engine.SubmitOptions{ID: strconv.Itoa(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	return ids
}

// ended waits until a job has ended in a state, after so many attempts with so
// many failures.
func ended(t testing.TB, eng *engine.Engine, id, state string, attempts, failures int) engine.JobInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	info, err := eng.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if info.State != state || info.Attempt != attempts || info.Failures != failures {
		t.Errorf("%s is %s after %d attempts with %d failures, want %s, %d, %d", id, info.State, info.Attempt, info.Failures, state, attempts, failures)
	}
	return info
}

// outcomes returns how the attempts of a job ended.
func outcomes(info engine.JobInfo) (list []string) {
	for _, a := range info.Attempts {
		list = append(list, a.Outcome)
	}
	return list
}

// items returns how many items lie in the work stream, after a second: those of jobs
// that have just ended go after the record says so.
func items(t testing.TB, nc *nats.Conn) uint64 {
	t.Helper()
	time.Sleep(time.Second)
	return streamInfo(t, nc, "mr_default_work").State.Msgs
}

func greeting() *engine.Job[string, string] {
	return engine.NewJob("greet", func(_ context.Context, name string) (string, error) {
		return "hello " + name, nil
	})
}

// A job is submitted, runs on a worker, and its result reaches who waits.
func TestJob(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	greet := greeting()
	work(t, connect(t, srv), engine.WorkerOptions{}, greet)

	eng := connect(t, srv)
	job, err := greet.Submit(t.Context(), eng, "Ann", engine.SubmitOptions{ID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if job.ID != "greet.ann" || !job.Created {
		t.Errorf("got %s, created %v, want greet.ann, created", job.ID, job.Created)
	}
	got, err := job.Wait(t.Context())
	if err != nil || got != "hello Ann" {
		t.Errorf("got %q, %v, want hello Ann", got, err)
	}
}

// A connection with which an engine could not keep its word is refused.
func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	_, err := engine.Connect(t.Context(), nil)
	refused(t, err, "engine: connect: there is no NATS connection: make one")
	srv := natstest.Start(t, t.TempDir())
	for want, opt := range map[string]nats.Option{
		"the NATS connection gives up":   nats.MaxReconnects(60),
		"the NATS connection sends late": nats.ReconnectBufSize(1024),
		"the NATS connection waits 1m0s": nats.ReconnectWait(time.Minute),
	} {
		_, err := engine.Connect(t.Context(), natstest.Connect(t, srv, opt))
		refused(t, err, "engine: connect: "+want)
	}
}

// An engine that is closed ends whatever waits for an answer.
func TestClose(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		held := func(natstest.Write) natstest.Fault { return natstest.Hold }
		p := start(t, srv, "a", held, workWrites)
		ctx := context.WithoutCancel(t.Context())
		calls := []func() error{ // in this order: who waits needs a job
			func() error { _, err := p.Submit(ctx, "job", nil, engine.SubmitOptions{ID: "1"}); return err },
			func() error { _, err := p.Wait(ctx, "job.1"); return err },
		}
		errs := make(chan error, len(calls))
		for _, call := range calls {
			go func() { errs <- call() }()
			time.Sleep(time.Second)
		}
		p.Engine.Close()
		for range calls {
			select {
			case err := <-errs:
				refused(t, err, "closed")
			case <-time.After(time.Minute):
				t.Fatal("a call goes on")
			}
		}
	})
}

func BenchmarkWorker(b *testing.B) {
	for _, slots := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			srv := natstest.Start(b, b.TempDir())
			done := make(chan struct{}, b.N+1)
			job := engine.NewJob("noop", func(context.Context, int) (int, error) {
				done <- struct{}{}
				return 0, nil
			})
			eng := connect(b, srv)
			jobs := func(n int) iter.Seq[engine.Submission[int]] {
				return func(yield func(engine.Submission[int]) bool) {
					for i := range n {
						if !yield(engine.Submission[int]{Input: i}) {
							return
						}
					}
				}
			}
			if _, err := job.SubmitMany(b.Context(), eng, jobs(b.N)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			work(b, eng, engine.WorkerOptions{Slots: slots}, job)
			for range b.N {
				<-done
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
