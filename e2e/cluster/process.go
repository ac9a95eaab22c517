package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// command is what a process is started with.
type command struct {
	process string // its name in the ledger
	node    string // under which ID it registers, or empty
	role    string
	path    string // of the program
	args    []string
	env     []string // besides that of the test
	queues  []string // from which a worker takes jobs
	slots   int
}

// process is one life of a program, in a process group of its own. It dies with
// the test process.
type process struct {
	command
	cmd  *exec.Cmd
	log  string        // file of what it prints
	done chan struct{} // closed when it has ended and that is in the ledger
}

// run starts a process.
func (c *Cluster) run(what command) (*process, error) {
	p := &process{command: what, log: filepath.Join(c.Dir, what.process+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster: start %s: %w", what.process, err)
	}
	defer log.Close() // the process has it open
	p.cmd = exec.Command(what.path, what.args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.Dir, log, log
	p.cmd.Env = append(os.Environ(),
		"MILLRACE_E2E_LEDGER="+c.ledgerPath(),
		"MILLRACE_E2E_PROCESS="+what.process,
		"MILLRACE_E2E_PROGRAM="+c.programs.actor())
	p.cmd.Env = append(append(p.cmd.Env, c.opts.Env...), what.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	setGroup(p.cmd.SysProcAttr)
	dieWithParent(p.cmd.SysProcAttr)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ctx.Err(); err != nil {
		return nil, fmt.Errorf("cluster: start %s: the test has ended: %w", what.process, err)
	}
	born := c.Ledger.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cluster: start %s: %w", what.process, err)
	}
	c.processes = append(c.processes, p)
	c.write(p.entry(ledger.Entry{At: born, What: ledger.Born, Queue: strings.Join(what.queues, ","), Count: what.slots}))
	c.wait.Go(func() {
		defer close(p.done)
		how := ledger.Clean
		if err := p.cmd.Wait(); err != nil {
			how = err.Error()
		}
		c.write(p.entry(ledger.Entry{What: ledger.Gone, Note: how}))
	})
	return p, nil
}

// entry fills in who p is.
func (p *process) entry(e ledger.Entry) ledger.Entry {
	e.Process, e.Node, e.Role, e.Pid = p.process, p.node, p.role, p.cmd.Process.Pid
	return e
}

// alive reports whether p has not ended.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal to the process alone, not to what it started. One that
// has ended already does not mind.
func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cluster: send %v to %s: %w", s, p.process, err)
	}
	return nil
}

// kill ends p at once. What it started is up to its guard: see bury.
func (p *process) kill() { _ = p.signal(syscall.SIGKILL) }

// burial is how long what a process started may survive it.
const burial = 5 * time.Second

// bury waits until p and its group are gone, and ends those who stay.
func (p *process) bury() {
	<-p.done
	late := time.NewTimer(burial)
	defer late.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for signalGroup(p.cmd.Process.Pid, 0) {
		select {
		case <-tick.C:
		case <-late.C:
			signalGroup(p.cmd.Process.Pid, syscall.SIGKILL)
			return
		}
	}
}

// tail returns the last lines of a file.
func tail(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return strings.TrimSpace(string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))))
}
