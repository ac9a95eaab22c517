package engine_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// crash is a story about one job in which everything is done by one process, the
// victim: it submits, runs and finishes the job, and it is the owner. The story is
// told once, to count its writes, and then again for each of them: the process
// dies before the write, dies when it is stored, or never hears that it is. Then
// another process starts, and the client asks again.
type crash struct {
	// submit is how the job is submitted, if the victim does that.
	submit *engine.SubmitOptions
	input  string // what the handler does
	// before prepares the namespace, with a process that is not the victim.
	before func(*testing.T, *server.Server)
	// then is what the client wants besides. It is asked again until it is done.
	then    func(context.Context, *engine.Engine) error
	tick    string // the ID of the job, if a schedule makes it
	want    string // the state in which the job ends; empty: it is gone
	ends    int    // how often it ends, if not once
	objects int    // that the job owns in the end
	// orphan is set if no worker takes the job.
	orphan bool
}

const crashID = "job.1"

// large is an input that is no part of the record. Its result is as large.
var large = "large" + strings.Repeat("x", 40<<10)

var crashes = map[string]crash{
	"succeeds":           {submit: &engine.SubmitOptions{}, want: "succeeded"},
	"fails at first":     {submit: &engine.SubmitOptions{}, input: "fail once", want: "succeeded"},
	"fails":              {submit: &engine.SubmitOptions{MaxAttempts: 1}, input: "fail", want: "failed"},
	"snoozes":            {submit: &engine.SubmitOptions{}, input: "snooze", want: "succeeded"},
	"is large":           {submit: &engine.SubmitOptions{}, input: large, want: "succeeded", objects: 2},
	"is large, deleted":  {before: submittedLarge, then: deleteIt},
	"reports":            {submit: &engine.SubmitOptions{}, input: "report", want: "succeeded"},
	"is delayed":         {submit: &engine.SubmitOptions{Delay: 3 * time.Second}, want: "succeeded"},
	"is not started":     {submit: &engine.SubmitOptions{Queue: "nobodys", QueueTimeout: 3 * time.Second}, want: "failed"},
	"misses a deadline":  {submit: &engine.SubmitOptions{Deadline: 3 * time.Second}, input: "wait", want: "failed"},
	"is of another kind": {before: anotherKind, want: "succeeded"},
	"is cancelled":       {submit: &engine.SubmitOptions{Delay: 40 * time.Second}, then: cancelIt, want: "cancelled"},
	"is stopped":         {submit: &engine.SubmitOptions{}, input: "wait", then: stopIt, want: "cancelled"},
	"is deleted":         {before: submitted, then: deleteIt},
	"is retried":         {before: failed, then: retryIt, want: "succeeded", ends: 2},
	"is taken over":      {before: dies, input: "wait", want: "succeeded"},
	"is orphaned":        {before: diesFor("nobodys", engine.SubmitOptions{MaxAttempts: 1}), want: "failed", orphan: true},
	"is late, orphaned":  {before: diesFor("nobodys", engine.SubmitOptions{Deadline: 3 * time.Second}), want: "failed", orphan: true},
	"lost its item":      {before: lostItem, want: "succeeded"},
	"lost its timer":     {before: lostTimer, want: "succeeded"},
}

// Whatever write a process dies before or after, and whatever answer it does not
// get, the job ends, once, and leaves nothing behind. With -seeds everything happens at
// each write, otherwise one thing.
func TestCrashPoints(t *testing.T) { crashAll(t, crashes) }

// crashAll tells stories with a fault at each write: with -seeds all that can happen there,
// otherwise one thing.
func crashAll(t *testing.T, stories map[string]crash) {
	t.Helper()
	for name, c := range stories {
		t.Run(name, func(t *testing.T) {
			var points []string
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) { points = c.tell(t, srv, 0, natstest.Pass) })
			if len(points) < 2 {
				t.Fatalf("the story has the writes %v", points)
			}
			for i, point := range points {
				t.Logf("%2d. %s", i+1, point)
				modes := faultsAt(point)
				if *seeds == 0 {
					modes = modes[i%len(modes):][:1]
				}
				for _, mode := range modes {
					t.Run(fmt.Sprintf("%d %s %s", i+1, point, mode), func(t *testing.T) {
						natstest.Bubble(t, func(t *testing.T, srv *server.Server) { c.tell(t, srv, i+1, mode) })
					})
				}
			}
		})
	}
}

// faultsAt returns what can happen to a write. One that wants no answer is lost, or
// is there when the process dies before its next one.
func faultsAt(point string) []natstest.Fault {
	if point == "announcement" || point == "acknowledgement" {
		return []natstest.Fault{natstest.DownBefore, natstest.CutBefore}
	}
	return []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer}
}

// tell tells the story with a fault at the n-th write, and returns its writes.
func (c crash) tell(t *testing.T, srv *server.Server, n int, fault natstest.Fault) (points []string) {
	t.Helper()
	witness := start(t, srv, "witness", nil)
	l, ends := newLedger(), countEnds(t, witness.Engine)
	if c.before != nil {
		c.before(t, srv)
	}
	v := &victim{t: t, srv: srv, fails: n, fault: fault, dead: make(chan struct{})}
	stop := v.live("a", l)
	c.ask(t, v)
	select {
	case <-v.dead:
		stop()
		b := &victim{t: t, srv: srv, dead: make(chan struct{})}
		b.live("b", l)
		c.ask(t, b)
	default:
	}
	if c.orphan { // what is left of the job goes when somebody takes from its queue
		start(t, srv, "late", nil).run(engine.WorkerOptions{NoOwner: true, Queues: []string{"nobodys"}}, crashJob(l))
	}
	c.check(t, witness, l, ends)
	if n > 0 && !v.met() {
		t.Logf("the story had fewer writes this time")
	}
	return v.points
}

// ask does what the client wants, again and again until it is done or the process
// dies, and then waits until the job has ended.
func (c crash) ask(t *testing.T, v *victim) {
	t.Helper()
	job := crashJob(nil)
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		err := v.orDies(ctx, func(ctx context.Context) error {
			if c.submit != nil {
				opts := *c.submit
				opts.ID, opts.Queue = "1", cmp.Or(opts.Queue, "job")
				_, err := job.Submit(ctx, v.eng, c.input, opts)
				if err != nil && !errors.Is(err, engine.ErrNotFound) {
					return err
				}
			}
			if c.then != nil {
				if err := c.then(ctx, v.eng); err != nil {
					return err
				}
			}
			_, err := v.eng.Wait(ctx, c.id())
			if c.want == "" && errors.Is(err, engine.ErrNotFound) {
				return nil
			}
			return err
		})
		cancel()
		if err == nil || v.isDead() {
			time.Sleep(time.Second) // what is under way comes to its end
			synctest.Wait()
			return
		}
		time.Sleep(time.Second)
	}
	t.Error("the client was never served")
}

func (c crash) id() string {
	switch {
	case c.tick != "":
		return c.tick
	case c.orphan:
		return "nobodys.1"
	case c.submit != nil && c.submit.Queue != "":
		return c.submit.Queue + ".1"
	}
	return crashID
}

// check compares what happened with what had to happen.
func (c crash) check(t *testing.T, witness *process, l *ledger, ends func() int) {
	t.Helper()
	time.Sleep(time.Minute)
	info, err := witness.Get(t.Context(), c.id())
	switch {
	case c.want == "" && !errors.Is(err, engine.ErrNotFound):
		t.Errorf("the job is there: %+v, %v", info, err)
	case c.want != "" && (err != nil || info.State != c.want):
		t.Errorf("the job is %s, %v, want %s: %+v", info.State, err, c.want, info)
	}
	if n := ends(); n != cmp.Or(c.ends, 1) {
		t.Errorf("the job ended %d times", n)
	}
	if err == nil {
		for _, node := range l.started(c.id()) {
			if !strings.Contains(fmt.Sprint(info.Attempts), node) {
				t.Errorf("node %s ran the job, and its attempts are %+v", node, info.Attempts)
			}
		}
		succeeded := strings.Count(fmt.Sprint(outcomes(info)), "succeeded")
		if (c.want == "succeeded") != (succeeded == 1) || succeeded > 1 {
			t.Errorf("%d attempts succeeded: %+v", succeeded, info.Attempts)
		}
	}
	var timers uint64
	if c.objects > 0 {
		timers = 1 // its expiry
		if len(info.Input) != len(large)+2 || len(info.Result) != len(large)+2 {
			t.Errorf("the input has %d bytes, the result %d", len(info.Input), len(info.Result))
		}
	}
	for stream, want := range map[string]uint64{"mr_default_work": 0, "mr_default_timers": timers} {
		if n := streamInfo(t, witness.nc, stream).State.Msgs; n != want {
			t.Errorf("%d messages are left in %s, want %d", n, stream, want)
		}
	}
}

// countEnds counts how often the job came to its end, by every revision of its
// record.
func countEnds(t *testing.T, eng *engine.Engine) func() int {
	t.Helper()
	var mu sync.Mutex
	n, was := 0, map[string]bool{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := eng.Watch(ctx, engine.ListOptions{}, func(j engine.JobInfo) {
			mu.Lock()
			defer mu.Unlock()
			if j.Ended() && !was[j.ID] {
				n++
			}
			was[j.ID] = j.Ended()
		})
		if err != nil {
			t.Errorf("watch: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	time.Sleep(time.Second) // the watch has begun
	return func() int {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// victim is a process that dies at one of its writes, or is told nothing of it.
type victim struct {
	t     *testing.T
	srv   *server.Server
	fails int // the number of the write that fails, or 0
	fault natstest.Fault
	eng   *engine.Engine

	mu     sync.Mutex
	armed  bool
	points []string
	died   bool
	dead   chan struct{}
}

// live runs the process under a node ID. It ends with the test, or by stop.
func (v *victim) live(node string, l *ledger) (stop func()) {
	v.t.Helper()
	link := natstest.NewLink(v.t, v.srv, v.decide, jobWrites, workWrites, "$KV.mr_default_cursor.schedule.>", "mr.default.timer.>", "mr.default.ended.>", "mr.default.log.>", "$O.>", "$JS.API.STREAM.PURGE.OBJ_mr_default_blobs",
		"$JS.ACK.mr_default_work.>", "$JS.API.STREAM.MSG.DELETE.>")
	nc := link.Connect(v.t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	eng, err := engine.Connect(v.t.Context(), nc, engine.Options{Node: node, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(eng.Close)
	v.eng = eng
	v.mu.Lock()
	v.armed = true // from the first write of the owner and the worker on
	v.mu.Unlock()
	p := &process{Engine: eng, t: v.t, link: link, nc: nc}
	halt := v.serve()
	worker := p.run(engine.WorkerOptions{Grace: time.Second}, crashJob(l))
	return func() { halt(); _ = worker() } // who is dead cannot store outcomes
}

// serve makes the process stand for owner, until it is stopped.
func (v *victim) serve() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := v.eng.Serve(ctx); err != nil && !v.isDead() {
			v.t.Errorf("serve: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	v.t.Cleanup(stop)
	return stop
}

// decide counts the writes, and lets one of them fail.
func (v *victim) decide(w natstest.Write) natstest.Fault {
	point := pointOf(w)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.armed || point == "" {
		return natstest.Pass
	}
	v.points = append(v.points, point)
	if len(v.points) != v.fails {
		return natstest.Pass
	}
	if w.Reply == "" && v.fault == natstest.LoseAnswer { // two writes came in another order this time
		v.fault = natstest.CutBefore
	}
	if w.Reply == "" && v.fault == natstest.DownAfter {
		v.fault = natstest.DownBefore
	}
	if v.fault == natstest.DownBefore || v.fault == natstest.DownAfter {
		v.died = true
		close(v.dead)
	}
	return v.fault
}

func (v *victim) isDead() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.died
}

func (v *victim) met() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.points) >= v.fails
}

// orDies does something, but no longer than the process lives.
func (v *victim) orDies(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-v.dead:
			cancel()
		case <-done:
		}
	}()
	return do(ctx)
}

// pointOf names a write. What keeps things as they are has no name.
func pointOf(w natstest.Write) string {
	s := w.Subject
	switch {
	case strings.HasPrefix(s, "$KV.mr_default_jobs."):
		return "record " + w.Header.Get("Mr-State")
	case strings.HasPrefix(s, "$KV.mr_default_cursor.schedule."):
		return "cursor"
	case strings.HasPrefix(s, "mr.default.work."):
		return "item"
	case strings.HasPrefix(s, "mr.default.timer."):
		return "timer " + strings.Split(s, ".")[4]
	case strings.HasPrefix(s, "mr.default.log."):
		return "line"
	case strings.HasPrefix(s, "$O.mr_default_blobs.C."):
		return "chunk of an object"
	case strings.HasPrefix(s, "$O.mr_default_blobs.M."):
		return "object"
	case s == "$JS.API.STREAM.PURGE.OBJ_mr_default_blobs":
		return "deletion of an object"
	case strings.HasPrefix(s, "mr.default.ended."):
		return "announcement"
	case strings.HasPrefix(s, "$JS.ACK.") && string(w.Data) == "+ACK":
		return "acknowledgement"
	case strings.HasPrefix(s, "$JS.API.STREAM.MSG.DELETE.mr_default_work"):
		return "withdrawal"
	case s == "$JS.API.STREAM.MSG.DELETE.mr_default_timers":
		return "deletion of the timer"
	case strings.HasPrefix(s, "$JS.API.STREAM.MSG.DELETE.KV_mr_default_jobs"):
		return "deletion of the record"
	}
	return ""
}

// crashJob is a job that does what its input says.
func crashJob(l *ledger) *engine.Job[string, string] {
	return engine.NewJob("job", func(ctx context.Context, what string) (string, error) {
		defer l.enter(ctx)()
		first := engine.JobFrom(ctx).Attempt == 1
		switch {
		case what == "fail", what == "fail once" && first:
			return "", errors.New("boom")
		case what == "snooze" && first:
			return "", engine.Snooze(3 * time.Second)
		case what == large:
			return large, nil
		case what == "report":
			j := engine.JobFrom(ctx)
			j.Say("half")
			j.Progress(1, 2, "half")
			time.Sleep(3 * time.Second)
			return "done", j.Heartbeat("all")
		case what == "wait":
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(time.Minute):
			}
		}
		return "done", nil
	}, engine.JobOptions{Retry: engine.Retry{Delay: 2 * time.Second, Jitter: -1}})
}

func cancelIt(ctx context.Context, eng *engine.Engine) error {
	_, err := eng.Cancel(ctx, crashID)
	return err
}

// stopIt cancels the job once it runs.
func stopIt(ctx context.Context, eng *engine.Engine) error {
	for {
		info, err := eng.Get(ctx, crashID)
		switch {
		case err != nil:
			return err
		case info.Ended():
			return nil
		case info.State == "running":
			_, err := eng.Cancel(ctx, crashID)
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func deleteIt(ctx context.Context, eng *engine.Engine) error {
	if _, err := eng.Wait(ctx, crashID); err != nil {
		if errors.Is(err, engine.ErrNotFound) {
			return nil
		}
		return err
	}
	time.Sleep(time.Millisecond) // the watch sees the end, and not only that it is gone
	if err := eng.Delete(ctx, crashID); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	return nil
}

// retryIt retries the job, unless that is done.
func retryIt(ctx context.Context, eng *engine.Engine) error {
	info, err := eng.Get(ctx, crashID)
	if err != nil || info.State != "failed" {
		return err
	}
	time.Sleep(time.Millisecond) // the watch sees the end
	if _, err := eng.Retry(ctx, crashID, "failed"); err != nil && !errors.Is(err, engine.ErrNotEnded) {
		return err
	}
	return nil
}

// failed leaves a job that has failed for good.
func failed(t *testing.T, srv *server.Server) {
	t.Helper()
	p := start(t, srv, "c", nil)
	stop := p.run(engine.WorkerOptions{NoOwner: true}, engine.NewJob("job", returns(nil, engine.Fail(errors.New("boom")))))
	submit(t, p.Engine, "job", 1)
	ended(t, p.Engine, crashID, "failed", 1, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// submitted leaves a job that is ready.
func submitted(t *testing.T, srv *server.Server) {
	t.Helper()
	submit(t, start(t, srv, "c", nil).Engine, "job", 1)
}

// submittedLarge leaves a job whose input and result are not part of its record.
func submittedLarge(t *testing.T, srv *server.Server) {
	t.Helper()
	p := start(t, srv, "c", nil)
	if _, err := crashJob(nil).Submit(t.Context(), p.Engine, large, engine.SubmitOptions{ID: "1"}); err != nil {
		t.Fatal(err)
	}
}

// anotherKind leaves a job that a worker without its kind has met.
func anotherKind(t *testing.T, srv *server.Server) {
	t.Helper()
	p := start(t, srv, "c", nil)
	stop := p.run(engine.WorkerOptions{NoOwner: true, Queues: []string{"job"}}, engine.NewJob("other", returns(nil, nil)))
	submit(t, p.Engine, "job", 1)
	time.Sleep(time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// dies leaves a job that runs on a node that is dead.
func dies(t *testing.T, srv *server.Server) { diesFor("job", engine.SubmitOptions{})(t, srv) }

// diesFor is dies for a job of some queue.
func diesFor(queue string, opts engine.SubmitOptions) func(*testing.T, *server.Server) {
	return func(t *testing.T, srv *server.Server) {
		t.Helper()
		p := start(t, srv, "c", nil)
		job := engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		stop := p.run(engine.WorkerOptions{NoOwner: true, Grace: time.Second, Queues: []string{queue}}, job)
		opts.ID, opts.Queue = "1", queue
		if _, err := job.Submit(t.Context(), p.Engine, nil, opts); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		p.link.Down()
		_ = stop() // its outcome cannot be stored
	}
}

// lostItem leaves a pending job that nobody would start.
func lostItem(t *testing.T, srv *server.Server) {
	t.Helper()
	p := start(t, srv, "c", nil)
	submit(t, p.Engine, "job", 1)
	purge(t, p.nc, "mr_default_work")
}

// lostTimer leaves a delayed job whose time would not come.
func lostTimer(t *testing.T, srv *server.Server) {
	t.Helper()
	p := start(t, srv, "c", nil)
	if _, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "1", Delay: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	purge(t, p.nc, "mr_default_timers")
}

// purge deletes all messages of a stream.
func purge(t testing.TB, nc *nats.Conn, stream string) {
	t.Helper()
	s, err := jetStream(t, nc).Stream(t.Context(), stream)
	if err == nil {
		err = s.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}
