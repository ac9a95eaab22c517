package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
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

var (
	seeds = flag.Int("seeds", 0, "how many random programs TestRandom and TestPartsRandom run; 0 means 40 and 15, or 20 and 5 with the race detector")
	seed  = flag.Uint64("seed", 0, "the one random program that they run again")
)

// Random programs: jobs of all sorts are submitted, cancelled, retried and deleted,
// queues paused and nodes drained, while processes die, freeze and are cut off, answers get lost, the owner's key is
// deleted, streams are purged and NATS restarts. Then the world is whole again,
// and every job has ended as the model allows. A program is made of its seed; how
// its goroutines interleave is not, so one that failed may need a few tries.
func TestRandom(t *testing.T) {
	first, many := uint64(1), *seeds
	if many == 0 {
		if many = 40; raceDetector {
			many = 20
		}
	}
	if *seed > 0 {
		first, many = *seed, 1
	}
	for s := first; s < first+uint64(many); s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				w := &random{
					T: t, srv: srv, rng: rand.New(rand.NewPCG(s, 0)), jobs: map[string]*randomJob{}, starts: map[string]string{}, drained: map[string]time.Time{},
					solos: map[string]soloRun{}, soloIDs: map[string]bool{},
				}
				w.run()
				if t.Failed() {
					t.Logf("again: go test ./engine -run TestRandom -seed %d", s)
				}
			})
		})
	}
}

// random is the world of one program, and the model of its jobs.
type random struct {
	*testing.T
	srv     *server.Server
	rng     *rand.Rand
	client  *process
	witness *process // whose connection nothing happens to, but for restarts
	nodes   []*randomNode
	stories []string // what was done, for who reads a failure

	limit int // how many handlers may run at once, or 0

	mu      sync.Mutex
	jobs    map[string]*randomJob
	starts  map[string]string  // job and attempt → node
	solos   map[string]soloRun // what runs of the jobs with a unique key, by key
	soloIDs map[string]bool
	drained map[string]time.Time // when nodes said that they take nothing
	paused  time.Time            // when the queue was, or zero
}

// randomNode is a process that runs jobs and stands for owner, now and then.
type randomNode struct {
	id   string
	life *process
	stop func() error
}

func (w *random) run() {
	w.client = start(w, w.srv, "client", w.unlucky(200))
	w.witness = start(w, w.srv, "witness", nil)
	w.watch()
	if w.rng.IntN(3) == 0 {
		w.limit = 2 + w.rng.IntN(3)
		w.note("limit %d", w.limit)
		w.insist(func(ctx context.Context) error {
			_, err := w.client.LimitQueue(ctx, "job", engine.QueueLimits{Concurrency: &w.limit})
			return err
		})
	}
	for i := range 3 {
		n := &randomNode{id: string(rune('a' + i))}
		w.nodes = append(w.nodes, n)
		w.begin(n)
	}
	for range 30 {
		time.Sleep(time.Duration(w.rng.IntN(2500)) * time.Millisecond)
		w.step()
	}
	for _, n := range w.nodes {
		if n.life == nil {
			w.begin(n)
		}
		n.life.link.Thaw()
		n.life.link.Up()
	}
	w.resume()
	for _, n := range w.nodes {
		w.undrain(n)
	}
	w.check()
	// The server stops before the processes do, if it was started again: see
	// natstest.Stop for why nobody may ask it for anything then.
	for _, l := range append(w.links(), w.witness.link) {
		l.Down()
	}
	synctest.Wait()
}

// links returns those of the client and of the processes that are there.
func (w *random) links() []*natstest.Link {
	links := []*natstest.Link{w.client.link}
	for _, n := range w.nodes {
		w.whileUp(n, func(l *natstest.Link) { links = append(links, l) })
	}
	return links
}

// step does one thing.
func (w *random) step() {
	switch n := w.nodes[w.rng.IntN(len(w.nodes))]; w.rng.IntN(32) {
	default:
		for range 1 + w.rng.IntN(8) {
			w.submit()
		}
	case 0, 1, 2:
		w.cancel()
	case 3:
		w.delete()
	case 4, 5, 6, 7:
		w.kill(n)
	case 8, 9:
		w.note("cut %s", n.id)
		w.whileUp(n, func(l *natstest.Link) { l.Cut() })
	case 10, 11:
		away := time.Duration(w.rng.IntN(20)) * time.Second
		w.note("freeze %s for %v", n.id, away)
		w.whileUp(n, func(l *natstest.Link) { l.Freeze(); time.Sleep(away); l.Thaw() })
	case 12, 13:
		away := time.Duration(w.rng.IntN(20)) * time.Second
		w.note("take %s off for %v", n.id, away)
		w.whileUp(n, func(l *natstest.Link) { l.Down(); time.Sleep(away); l.Up() })
	case 14:
		w.restart()
	case 15:
		w.note("delete the owner's key")
		leases, err := jetStream(w, w.client.nc).KeyValue(w.Context(), "mr_default_leases")
		if err == nil {
			_ = leases.Delete(w.Context(), "owner") // which may not be there
		}
	case 16:
		stream := []string{"mr_default_work", "mr_default_timers"}[w.rng.IntN(2)]
		if w.limit > 0 {
			stream = "mr_default_timers" // items are what is counted
		}
		w.note("purge %s", stream)
		if s, err := jetStream(w, w.client.nc).Stream(w.Context(), stream); err == nil {
			_ = s.Purge(w.Context()) // the connection may have been cut just now
		}
	case 17, 18, 19:
		w.redrive()
	case 20:
		w.pause()
	case 21:
		w.resume()
	case 22:
		w.drain(n)
	case 23:
		w.undrain(n)
	case 24, 25:
		w.solo()
	}
}

func (w *random) note(format string, args ...any) {
	w.stories = append(w.stories, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *random) whileUp(n *randomNode, do func(*natstest.Link)) {
	if n.life != nil {
		do(n.life.link)
	}
}

// unlucky breaks one of n writes.
func (w *random) unlucky(n int) func(natstest.Write) natstest.Fault {
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
	return func(wr natstest.Write) natstest.Fault {
		switch draw := rng.IntN(3 * n); {
		case draw == 0 && wr.Reply != "":
			return natstest.LoseAnswer
		case draw == 1:
			return natstest.CutBefore
		case draw == 2 && wr.Reply != "":
			return natstest.CutAfter
		}
		return natstest.Pass
	}
}

// begin starts a process for a node: under the ID that it had, or another.
func (w *random) begin(n *randomNode) {
	if w.rng.IntN(2) == 0 {
		n.id += "x"
	}
	w.note("start %s", n.id)
	link := natstest.NewLink(w, w.srv, w.unlucky(100), jobWrites, workWrites, "mr.default.timer.>", "$JS.ACK.mr_default_work.>",
		"$JS.API.STREAM.MSG.DELETE.>", "$JS.API.STREAM.PURGE.>", "$KV.mr_default_nodes.>", "$KV.mr_default_leases.>")
	p := &process{t: w, link: link}
	p.nc = link.Connect(w, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	var err error
	for range 60 { // its first requests may be unlucky
		if p.Engine, err = engine.Connect(w.Context(), p.nc, engine.Options{Node: n.id, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(p.Engine.Close)
	n.life, n.stop = p, p.run(engine.WorkerOptions{Slots: 5, Grace: time.Second}, w.job(), w.soloJob())
}

// kill ends a process without a word, and sometimes with one; later, or at once,
// another one starts.
func (w *random) kill(n *randomNode) {
	if n.life == nil {
		w.begin(n)
		return
	}
	if w.rng.IntN(3) > 0 {
		w.note("kill %s", n.id)
		n.life.link.Down()
	} else {
		w.note("stop %s", n.id)
	}
	_ = n.stop() // who is dead cannot store outcomes
	n.life.link.Down()
	n.life = nil
	if w.rng.IntN(2) == 0 {
		w.begin(n)
	}
}

// restart ends the server and starts it again on its store.
func (w *random) restart() {
	away := time.Duration(w.rng.IntN(10)) * time.Second
	w.note("restart NATS after %v", away)
	dir := filepath.Dir(w.srv.StoreDir())
	links := append(w.links(), w.witness.link)
	natstest.Stop(w.srv, links...)
	time.Sleep(away)
	w.srv = natstest.Start(w, dir)
	for _, l := range links {
		l.Reroute(w.srv)
	}
}

// submit submits a new job of some sort. The client asks until it is told.
func (w *random) submit() {
	j := &randomJob{limit: 1000, what: []string{"", "", "long", "stubborn", "fail", "fail", "snooze"}[w.rng.IntN(7)]}
	large := "" // or more than fits into a record
	if w.rng.IntN(8) == 0 {
		large = strings.Repeat(" ", 40<<10)
	}
	class := []engine.Class{"", "", engine.High, engine.Low}[w.rng.IntN(4)]
	opts := engine.SubmitOptions{ID: fmt.Sprint(len(w.jobs)), MaxAttempts: j.limit, Class: class}
	j.id = "job." + opts.ID
	switch {
	case j.what == "fail" && w.rng.IntN(3) == 0:
		j.fails, j.limit = 1000, 1+w.rng.IntN(3)
		opts.MaxAttempts = j.limit
	case j.what == "fail" || j.what == "snooze":
		j.fails = 1 + w.rng.IntN(2)
	}
	switch w.rng.IntN(6) {
	case 0:
		j.due = time.Now().Add(time.Duration(w.rng.IntN(10)) * time.Second)
		opts.At = j.due
	case 1:
		j.limited, opts.QueueTimeout = true, time.Duration(1+w.rng.IntN(10))*time.Second
	case 2:
		j.limited, opts.Deadline = true, time.Duration(1+w.rng.IntN(10))*time.Second
	}
	w.mu.Lock()
	w.jobs[j.id] = j
	w.mu.Unlock()
	w.insist(func(ctx context.Context) error {
		_, err := w.job().Submit(ctx, w.client.Engine, j.what+large, opts)
		return err
	})
}

// pick returns some job, or nil.
func (w *random) pick() *randomJob {
	if len(w.jobs) == 0 {
		return nil
	}
	return w.jobs[fmt.Sprintf("job.%d", w.rng.IntN(len(w.jobs)))]
}

func (w *random) cancel() {
	j := w.pick()
	if j == nil {
		return
	}
	w.mu.Lock()
	j.cancel = true
	w.mu.Unlock()
	w.insist(func(ctx context.Context) error {
		info, err := w.client.Cancel(ctx, j.id)
		if err == nil && info.State == "cancelled" {
			w.mu.Lock()
			j.cancelled = true
			w.mu.Unlock()
		}
		if err != nil && !errors.Is(err, engine.ErrNotFound) && !strings.Contains(err.Error(), "cannot cancel while") {
			return err
		}
		return nil
	})
}

// redrive retries a job, if it has ended. What it was stopped by is over then.
func (w *random) redrive() {
	j := w.pick()
	if j == nil {
		return
	}
	w.note("redrive %s", j.id)
	w.mu.Lock()
	j.cancelled = false
	j.redrives++
	w.mu.Unlock()
	w.insist(func(ctx context.Context) error {
		_, err := w.client.Retry(ctx, j.id)
		if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrNotEnded) {
			return nil
		}
		return err
	})
}

func (w *random) pause() {
	w.note("pause")
	w.insist(func(ctx context.Context) error { _, err := w.client.PauseQueue(ctx, "job"); return err })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused.IsZero() {
		w.paused = time.Now()
	}
}

func (w *random) resume() {
	w.note("resume")
	w.mu.Lock()
	w.paused = time.Time{}
	w.mu.Unlock()
	w.insist(func(ctx context.Context) error { _, err := w.client.ResumeQueue(ctx, "job"); return err })
}

// drain drains a node, if it is there to say so.
func (w *random) drain(n *randomNode) {
	w.note("drain %s", n.id)
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	if w.client.Drain(ctx, n.id) == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.drained[n.id] = time.Now()
	}
}

func (w *random) undrain(n *randomNode) {
	w.note("undrain %s", n.id)
	w.mu.Lock()
	delete(w.drained, n.id)
	w.mu.Unlock()
	if n.life == nil {
		return
	}
	w.insist(func(ctx context.Context) error { return w.client.Undrain(ctx, n.id) })
}

func (w *random) delete() {
	j := w.pick()
	if j == nil {
		return
	}
	w.insist(func(ctx context.Context) error {
		err := w.client.Delete(ctx, j.id)
		if err == nil {
			w.mu.Lock()
			j.deleted = true
			w.mu.Unlock()
		}
		if errors.Is(err, engine.ErrNotEnded) || errors.Is(err, engine.ErrNotFound) {
			return nil
		}
		return err
	})
}

// insist does something until it succeeds.
func (w *random) insist(do func(context.Context) error) {
	w.Helper()
	var err error
	for range 60 {
		ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
		err = do(ctx)
		cancel()
		if err == nil {
			return
		}
		time.Sleep(time.Second)
	}
	w.Errorf("the client was not served for a minute: %v", err)
}
