package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/engine"
)

// program is an exec handler: a command line that runs once for each attempt.
//
//	standard input   the job's input, JSON
//	environment      the worker's, and MILLRACE_JOB_ID, _KIND, _ATTEMPT, _FENCE, _NODE, _NAMESPACE, _DETAILS
//	standard output  the result: JSON, otherwise a string
//	standard error   the job's log, line by line; ::progress and ::heartbeat are reports
//	exit status      0 success; 75 try again later; 65 and 78 fail for good; others fail the attempt
//
// A command that ends with 75 may say how long later: what it printed, such as
// 10m.
//
// When the attempt has to end, its process group gets SIGTERM, and SIGKILL after
// the grace. An attempt is over when its command exits: what the command leaves
// in its group is killed then.
type program struct {
	line    string
	grace   time.Duration
	running *programs
}

// The exit statuses with a meaning, as sysexits.h names them.
const (
	exitDataErr  = 65
	exitTempFail = 75
	exitConfig   = 78
)

const (
	// snooze is how long a job rests whose command asked for it and did not
	// say how long.
	snooze = time.Second
	// straggle is how long the output of an ended command is still read: a
	// process that has left the group may hold it open.
	straggle = time.Second
	// groupPoll is how often a group that has to end is looked at.
	groupPoll = 10 * time.Millisecond
)

// handle runs the command for one attempt.
func (p program) handle(ctx context.Context, input json.RawMessage) (json.RawMessage, error) {
	job := engine.JobFrom(ctx)
	out := &capture{limit: engine.MaxValue}
	log := &lines{job: job}
	state, err := p.run(ctx, job, input, out, log)
	if err != nil {
		return nil, err
	}
	log.flush()
	if err := p.judge(state, out, log); err != nil {
		return nil, err
	}
	return out.result()
}

// run runs the command until it ends or, some grace after ctx, is ended.
func (p program) run(ctx context.Context, job engine.Current, input []byte, stdout, stderr io.Writer) (*os.ProcessState, error) {
	if len(input) == 0 {
		input = []byte("null")
	}
	var details json.RawMessage
	if _, err := job.Details(&details); err != nil {
		return nil, err
	}
	cmd := exec.Command(shell[0], append(shell[1:], p.line)...)
	cmd.Env = append(os.Environ(),
		"MILLRACE_JOB_ID="+job.ID,
		"MILLRACE_KIND="+job.Kind,
		"MILLRACE_ATTEMPT="+strconv.Itoa(job.Attempt),
		"MILLRACE_FENCE="+strconv.FormatUint(job.Fence, 10),
		"MILLRACE_NODE="+job.Node,
		"MILLRACE_NAMESPACE="+job.Namespace,
		"MILLRACE_DETAILS="+string(details),
	)
	own(cmd)
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	log, errLog := cmd.StderrPipe()
	if err := errors.Join(errIn, errOut, errLog); err != nil {
		return nil, fmt.Errorf("make pipes for the command: %w", err)
	}
	if err := p.running.start(cmd); err != nil {
		return nil, fmt.Errorf("start the command: %w", err)
	}
	defer p.running.ended(cmd)

	var reading, writing sync.WaitGroup
	writing.Go(func() { _, _ = in.Write(input); _ = in.Close() }) // a command need not read it
	reading.Go(func() { _, _ = io.Copy(stdout, out) })
	reading.Go(func() { _, _ = io.Copy(stderr, log) })
	state, err := p.await(ctx, cmd.Process)
	killGroup(cmd.Process.Pid)
	_ = in.Close()
	writing.Wait()
	read := make(chan struct{})
	go func() { reading.Wait(); close(read) }()
	select {
	case <-read:
	case <-time.After(straggle):
	}
	_, _ = out.Close(), log.Close()
	<-read
	return state, err
}

// await waits until the command has ended, and ends it, with its group, when
// ctx does.
func (p program) await(ctx context.Context, process *os.Process) (*os.ProcessState, error) {
	type end struct {
		state *os.ProcessState
		err   error
	}
	ended := make(chan end, 1)
	go func() {
		state, err := process.Wait()
		ended <- end{state, err}
	}()
	select {
	case e := <-ended:
		return e.state, e.err
	case <-ctx.Done():
	}
	terminateGroup(process.Pid)
	grace := time.NewTimer(p.grace)
	defer grace.Stop()
	look := time.NewTicker(groupPoll)
	defer look.Stop()
	var last *end
	for last == nil || groupAlive(process.Pid) {
		select {
		case e := <-ended:
			last = &e
		case <-look.C:
		case <-grace.C:
			killGroup(process.Pid)
			if last == nil {
				e := <-ended
				last = &e
			}
			return last.state, last.err
		}
	}
	return last.state, last.err
}

// judge turns the way in which a command ended into an error, or nil.
func (p program) judge(state *os.ProcessState, out *capture, log *lines) error {
	if state.Success() {
		return nil
	}
	err := errors.New(log.explain(state.String()))
	switch state.ExitCode() {
	case exitTempFail:
		return engine.Snooze(out.rest())
	case exitDataErr, exitConfig:
		return engine.Fail(err)
	}
	return err
}

// programs are the commands that run now.
type programs struct {
	mu    sync.Mutex
	guard *guard // nil if nobody watches over them
	pids  map[int]bool
	over  bool
}

// watch has them watched over until kill.
func (p *programs) watch() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guard, err = startGuard()
	return err
}

// start starts a command, unless all have been killed.
func (p *programs) start(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return errors.New("the worker has ended")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if p.pids == nil {
		p.pids = map[int]bool{}
	}
	p.pids[cmd.Process.Pid] = true
	if p.guard != nil {
		p.guard.started(cmd.Process.Pid)
	}
	return nil
}

func (p *programs) ended(cmd *exec.Cmd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pids, cmd.Process.Pid)
	if p.guard != nil {
		p.guard.ended(cmd.Process.Pid)
	}
}

// kill kills whatever runs. Nothing starts any more.
func (p *programs) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for pid := range p.pids {
		killGroup(pid)
	}
	if p.guard != nil {
		p.guard.close()
		p.guard = nil
	}
}

// capture keeps what is written up to a limit, and counts the rest.
type capture struct {
	limit int
	kept  bytes.Buffer
	size  int
}

// Write never fails, so that who writes is never stopped.
func (c *capture) Write(b []byte) (int, error) {
	c.size += len(b)
	c.kept.Write(b[:min(len(b), c.limit-c.kept.Len())])
	return len(b), nil
}

// result returns what was written: as JSON if it is, otherwise as a string
// without the ends of lines that follow it, as the shell has it.
func (c *capture) result() (json.RawMessage, error) {
	if c.size > c.limit {
		return nil, engine.Fail(fmt.Errorf("the command wrote %d bytes, and a result has up to %d: put it elsewhere and print a reference", c.size, c.limit))
	}
	text := bytes.TrimSpace(c.kept.Bytes())
	switch {
	case len(text) == 0:
		return nil, nil
	case json.Valid(text):
		return text, nil
	}
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	err := enc.Encode(strings.TrimRight(c.kept.String(), "\r\n"))
	return quoted.Bytes(), err
}

// rest returns for how long the command wants to be left alone: what it wrote,
// if that is a duration.
func (c *capture) rest() time.Duration {
	d, err := time.ParseDuration(strings.TrimSpace(c.kept.String()))
	if err != nil || d < 0 {
		return snooze
	}
	return d
}
