package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/engine"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	if ledger := os.Getenv(ledgerEnv); ledger != "" {
		if err := work(ledger); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "millrace-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "millrace")
	build := exec.Command("go", "build", "-o", binary, "../cmd/millrace")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	status := 1
	if err := build.Run(); err == nil {
		status = cluster.Main(m)
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// patience is how long a test waits for what must happen. It says nothing
// about how long that should take.
const patience = 90 * time.Second

// installation is a NATS server and what runs on it.
type installation struct {
	t   *testing.T
	dir string
	url string
}

// install starts a server with the engine, in a process of its own.
func install(t *testing.T) *installation {
	t.Helper()
	i := &installation{t: t, dir: t.TempDir()}
	dev := i.start("dev", "--dir", filepath.Join(i.dir, "nats"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	i.url = dev.awaitOutput(regexp.MustCompile(`nats://127\.0\.0\.1:\d+`))
	return i
}

// process is one running command.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
}

// start runs the binary in the background until the test ends. Nothing that it
// started survives the test.
func (i *installation) start(args ...string) *process {
	i.t.Helper()
	p := &process{t: i.t, name: args[0], cmd: i.command(args...), out: &output{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		i.t.Fatalf("start %v: %v", args, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is the test's to know
	}()
	i.t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			i.t.Errorf("%s did not end within 20s of SIGTERM", p.name)
			p.signal(syscall.SIGKILL)
			<-p.done
		}
		if i.t.Failed() {
			i.t.Logf("output of %s:\n%s", strings.Join(p.cmd.Args[1:], " "), p.out)
		}
	})
	return p
}

// run runs the binary to its end and returns what it printed.
func (i *installation) run(args ...string) string {
	i.t.Helper()
	cmd := i.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		i.t.Fatalf("millrace %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

func (i *installation) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(i.t.Context(), binary, args...)
	cmd.Cancel = func() error { return nil } // the cleanup ends it
	cmd.Env = append(os.Environ(), "NATS_URL="+i.url)
	cmd.Dir = i.dir
	return cmd
}

// file writes a file for commands to read and returns its path.
func (i *installation) file(name, text string) string {
	i.t.Helper()
	path := filepath.Join(i.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// jobs lists the jobs of a state, or all.
func (i *installation) jobs(state string) []engine.JobInfo {
	i.t.Helper()
	args := []string{"job", "list", "--output", "json", "--limit", "100000"}
	if state != "" {
		args = append(args, "--state", state)
	}
	var list []engine.JobInfo
	for line := range strings.Lines(i.run(args...)) {
		list = append(list, decode[engine.JobInfo](i.t, line))
	}
	return list
}

func (i *installation) job(id string) engine.JobInfo {
	i.t.Helper()
	return decode[engine.JobInfo](i.t, i.run("job", "get", id, "--output", "json"))
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
	return v
}

// signal sends a signal to the process alone, not to what it started.
func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v to %s: %v", s, p.name, err)
	}
}

// awaitOutput waits until the process has printed what matches.
func (p *process) awaitOutput(pattern *regexp.Regexp) string {
	p.t.Helper()
	var found string
	await(p.t, fmt.Sprintf("%s prints %s", p.name, pattern), func() bool {
		found = pattern.FindString(p.out.String())
		return found != ""
	})
	return found
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// checkPath reports what is wrong with a job's attempts as a path of the state
// machine: they are numbered from 1, all but the last have ended without
// success, and the last one fits the state.
func checkPath(j engine.JobInfo) error {
	var errs []error
	for n, a := range j.Attempts {
		last := n == len(j.Attempts)-1
		if a.Number != n+1 {
			errs = append(errs, fmt.Errorf("attempt %d has number %d", n+1, a.Number))
		}
		if !last && !slices.Contains([]string{"failed", "returned", "lost"}, a.Outcome) {
			errs = append(errs, fmt.Errorf("attempt %d is %q, and another followed", a.Number, a.Outcome))
		}
		if last && j.State == "succeeded" && a.Outcome != "succeeded" {
			errs = append(errs, fmt.Errorf("the last attempt is %q", a.Outcome))
		}
	}
	if j.Attempt != len(j.Attempts) {
		errs = append(errs, fmt.Errorf("%d attempts are listed, %d counted", len(j.Attempts), j.Attempt))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("job %s: %w", j.ID, err)
	}
	return nil
}
