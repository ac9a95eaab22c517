// Package program is a handler that is a program: a command line that runs once
// for each attempt.
//
//	standard input   the job's input, JSON
//	environment      the worker's, and MILLRACE_JOB_ID, _KIND, _ATTEMPT, _FENCE, _NODE, _NAMESPACE, _DETAILS;
//	                 of parts and shards also _PARENT, _PART, _SHARD, _SHARDS, _SHARD_PARAMETER
//	standard output  the result: JSON, otherwise a string
//	standard error   the job's log, line by line; ::progress and ::heartbeat are reports
//	exit status      0 success; 75 try again later; 65 and 78 fail for good; others fail the attempt
//
// A command that ends with 75 may say how long later: what it printed, such as
// 10m.
//
// When the attempt has to end, its process group gets SIGTERM, and SIGKILL after
// the grace. An attempt is over when its command exits: what the command leaves
// in its group is killed then. What a worker leaves that died is killed by its
// guard.
//
// Start reading at [Handler.Handle].
package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/engine"
)

// Handler runs a command line, once for each attempt.
type Handler struct {
	// Line is the command line, for the shell.
	Line string
	// Grace is how long a command may take to end after SIGTERM.
	Grace time.Duration
	// Running has the command while it runs.
	Running *Running
}

// The exit statuses with a meaning, as sysexits.h names them.
const (
	exitDataErr  = 65
	exitTempFail = 75
	exitConfig   = 78
)

const (
	// straggle is how long the output of an ended command is still read: a
	// process that has left the group may hold it open.
	straggle = time.Second
	// groupPoll is how often a group that has to end is looked at.
	groupPoll = 10 * time.Millisecond
)

// Handle runs the command for one attempt, whose context and input it is given.
func (h Handler) Handle(ctx context.Context, input json.RawMessage) (json.RawMessage, error) {
	job := engine.JobFrom(ctx)
	out := &capture{limit: engine.MaxValue}
	log := &lines{job: job}
	state, err := h.run(ctx, job, input, out, log)
	if err != nil {
		return nil, err
	}
	log.flush()
	if err := h.judge(state, out, log); err != nil {
		return nil, err
	}
	return out.result()
}

// run runs the command until it ends or, some grace after ctx, is ended.
func (h Handler) run(ctx context.Context, job engine.Current, input []byte, stdout, stderr io.Writer) (*os.ProcessState, error) {
	if len(input) == 0 {
		input = []byte("null")
	}
	var details json.RawMessage
	if _, err := job.Details(&details); err != nil {
		return nil, err
	}
	cmd := exec.Command(shell[0], append(shell[1:], h.Line)...)
	cmd.Env = append(os.Environ(), environment(job, details)...)
	own(cmd)
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	log, errLog := cmd.StderrPipe()
	if err := errors.Join(errIn, errOut, errLog); err != nil {
		return nil, fmt.Errorf("make pipes for the command: %w", err)
	}
	if err := h.Running.start(cmd); err != nil {
		return nil, fmt.Errorf("start the command: %w", err)
	}
	defer h.Running.ended(cmd)

	var reading, writing sync.WaitGroup
	writing.Go(func() { _, _ = in.Write(input); _ = in.Close() }) // a command need not read it
	reading.Go(func() { _, _ = io.Copy(stdout, out) })
	reading.Go(func() { _, _ = io.Copy(stderr, log) })
	state, err := h.await(ctx, cmd.Process)
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

// environment returns what a command is told of its attempt. What does not apply is
// empty, so that nothing is inherited from a command that started this worker.
func environment(job engine.Current, details json.RawMessage) []string {
	var shard, shards, parameter string
	if s := job.Shard; s != nil {
		shard, shards, parameter = strconv.Itoa(s.Index), strconv.Itoa(s.Total), s.Parameter
	}
	return []string{
		"MILLRACE_JOB_ID=" + job.ID,
		"MILLRACE_KIND=" + job.Kind,
		"MILLRACE_ATTEMPT=" + strconv.Itoa(job.Attempt),
		"MILLRACE_FENCE=" + strconv.FormatUint(job.Fence, 10),
		"MILLRACE_NODE=" + job.Node,
		"MILLRACE_NAMESPACE=" + job.Namespace,
		"MILLRACE_DETAILS=" + string(details),
		"MILLRACE_PARENT=" + job.Parent,
		"MILLRACE_PART=" + job.Part,
		"MILLRACE_SHARD=" + shard,
		"MILLRACE_SHARDS=" + shards,
		"MILLRACE_SHARD_PARAMETER=" + parameter,
	}
}

// await waits until the command has ended, and ends it, with its group, when
// ctx does.
func (h Handler) await(ctx context.Context, process *os.Process) (*os.ProcessState, error) {
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
	grace := time.NewTimer(h.Grace)
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
func (h Handler) judge(state *os.ProcessState, out *capture, log *lines) error {
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
