package e2e_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
)

var killJobs = flag.Int("jobs", 1000, "how many jobs TestKilledWorkers submits")

// ledgerEnv makes a process of the test binary a worker that writes every start
// of its handler into that file.
const ledgerEnv = "MILLRACE_E2E_LEDGER"

// lives are the jobs of TestKilledWorkers. They take a moment, so that a kill hits
// some of them.
func lives(ledger *os.File) *engine.Job[int, string] {
	return engine.NewJob("live", func(ctx context.Context, _ int) (string, error) {
		job := engine.JobFrom(ctx)
		if _, err := fmt.Fprintf(ledger, "%s %d %s\n", job.ID, job.Attempt, job.Node); err != nil { // one write: lines stay whole
			return "", err
		}
		select {
		case <-time.After(time.Duration(rand.IntN(40)) * time.Millisecond):
			return job.Node, nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}, engine.JobOptions{MaxAttempts: 1000})
}

// work is a worker, until the process is told to end.
func work(ledger string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	file, err := os.OpenFile(ledger, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	nc, err := nats.Connect(os.Getenv("NATS_URL"), engine.ConnectOptions()...)
	if err != nil {
		return err
	}
	defer nc.Close()
	eng, err := engine.Connect(ctx, nc, engine.Options{Existing: true, Node: os.Getenv("MILLRACE_E2E_NODE")})
	if err != nil {
		return err
	}
	defer eng.Close()
	worker, err := eng.Worker(engine.WorkerOptions{Slots: 25, NoOwner: true}, lives(file))
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}

// herd is workers of which one is killed now and then, and replaced.
type herd struct {
	t      *testing.T
	url    string
	ledger string
	alive  []*exec.Cmd
	killed map[string]time.Time // by node
	made   int
}

func (h *herd) add() {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), os.Args[0])
	h.made++
	cmd.Env = append(os.Environ(), "NATS_URL="+h.url, ledgerEnv+"="+h.ledger, fmt.Sprintf("MILLRACE_E2E_NODE=w%d", h.made))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.alive = append(h.alive, cmd)
}

// kill kills a random worker and starts another.
func (h *herd) kill() {
	i := rand.IntN(len(h.alive))
	cmd := h.alive[i]
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	for _, e := range cmd.Env {
		if node, ok := strings.CutPrefix(e, "MILLRACE_E2E_NODE="); ok {
			h.killed[node] = time.Now()
		}
	}
	h.alive = append(h.alive[:i], h.alive[i+1:]...)
	h.add()
}

func (h *herd) stop() {
	for _, cmd := range h.alive {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
}

// Four workers run many jobs, and every 200 ms a random one is killed. Every job
// ends well, and none was started twice unless the node of its first start was
// killed (I3, I4).
func TestKilledWorkers(t *testing.T) {
	i := install(t)
	nc, err := nats.Connect(i.url, engine.ConnectOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	eng, err := engine.Connect(t.Context(), nc, engine.Options{Existing: true})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	handles, err := lives(nil).SubmitMany(t.Context(), eng, numbered(*killJobs))
	if err != nil {
		t.Fatal(err)
	}

	h := &herd{t: t, url: i.url, ledger: filepath.Join(i.dir, "starts"), killed: map[string]time.Time{}}
	for range 4 {
		h.add()
	}
	defer h.stop()
	infos := make([]engine.JobInfo, len(handles))
	ended := make(chan struct{})
	var waiting sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	began := time.Now()
	waiting.Go(func() {
		defer close(ended)
		for n, handle := range handles {
			if infos[n], err = eng.Wait(ctx, handle.ID); err != nil {
				t.Errorf("wait for %s: %v", handle.ID, err)
				return
			}
		}
	})
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for open := true; open; {
		select {
		case <-ended:
			open = false
		case <-every.C:
			h.kill()
		}
	}
	waiting.Wait()
	t.Logf("%d jobs, %d kills, %v", len(infos), len(h.killed), time.Since(began).Round(time.Millisecond))
	h.check(infos)
}

// check compares the records with what the handlers wrote down.
func (h *herd) check(infos []engine.JobInfo) {
	h.t.Helper()
	starts := h.read()
	lost := 0
	for _, j := range infos {
		if j.State != "succeeded" {
			h.t.Errorf("job %s is %s: %+v", j.ID, j.State, j.Error)
		}
		for n, node := range starts[j.ID] {
			if _, dead := h.killed[node]; !dead && n < len(starts[j.ID])-1 {
				h.t.Errorf("job %s was started on %v, and node %s was never killed", j.ID, starts[j.ID], node)
			}
		}
		for _, a := range j.Attempts {
			_, dead := h.killed[a.Node]
			if a.Outcome != "succeeded" && (a.Outcome != "lost" || !dead) {
				h.t.Errorf("job %s: attempt %d on %s is %s", j.ID, a.Number, a.Node, a.Outcome)
			}
			if a.Outcome == "lost" {
				lost++
			}
		}
	}
	h.t.Logf("%d attempts were lost", lost)
}

// read returns the nodes on which each job was started, in order.
func (h *herd) read() map[string][]string {
	h.t.Helper()
	file, err := os.Open(h.ledger)
	if err != nil {
		h.t.Fatal(err)
	}
	defer file.Close()
	starts := map[string][]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var id, node string
		var attempt int
		if _, err := fmt.Sscanf(lines.Text(), "%s %d %s", &id, &attempt, &node); err != nil {
			h.t.Fatalf("ledger says %q: %v", lines.Text(), err)
		}
		starts[id] = append(starts[id], node)
	}
	return starts
}

// numbered is n jobs whose input is their number.
func numbered(n int) iter.Seq[engine.Submission[int]] {
	return func(yield func(engine.Submission[int]) bool) {
		for i := range n {
			if !yield(engine.Submission[int]{Input: i, Options: engine.SubmitOptions{ID: fmt.Sprint(i)}}) {
				return
			}
		}
	}
}
