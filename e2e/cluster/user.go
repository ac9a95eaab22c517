package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// callTime is how long a command may take. After that nobody knows what it has
// done.
const callTime = time.Minute

// listTime is the same for one that lists all jobs, of which there may be hundreds of
// thousands.
const listTime = 2 * time.Minute

// Try runs a command of millrace, which finds the servers where they really are,
// and returns what it printed.
func (c *Cluster) Try(args ...string) (string, error) { return c.within(callTime, args...) }

// within is [Cluster.Try] with other patience.
func (c *Cluster) within(d time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, d)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.programs.millrace(), args...)
	cmd.Env = append(os.Environ(), "NATS_URL="+c.directURL())
	cmd.Dir = c.Dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("millrace %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Run is [Cluster.Try], and ends the test if the command fails.
func (c *Cluster) Run(args ...string) string {
	c.t.Helper()
	out, err := c.Try(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// Cancel cancels a job.
func (c *Cluster) Cancel(job string) error {
	return c.call(ledger.Entry{Verb: ledger.Cancel, Job: job}, "job", "cancel", job)
}

// Retry runs a job that has ended once more.
func (c *Cluster) Retry(job string) error {
	defer c.ended.forget()
	return c.call(ledger.Entry{Verb: ledger.Retry, Job: job}, "job", "retry", job)
}

// Pause keeps the jobs of a queue from starting.
func (c *Cluster) Pause(queue string) error {
	return c.call(ledger.Entry{Verb: ledger.Pause, Queue: queue}, "queue", "pause", queue)
}

// Resume lets the jobs of a queue start again.
func (c *Cluster) Resume(queue string) error {
	return c.call(ledger.Entry{Verb: ledger.Resume, Queue: queue}, "queue", "resume", queue)
}

// Limit lets at most so many jobs of a queue run at once; 0 is no limit.
func (c *Cluster) Limit(queue string, count int) error {
	return c.call(ledger.Entry{Verb: ledger.Limit, Queue: queue, Count: count},
		"queue", "limits", queue, "--concurrency", strconv.Itoa(count))
}

// Drain lets a node take no more jobs. When it returns without an error nothing
// starts there any more.
func (c *Cluster) Drain(node string) error {
	return c.call(ledger.Entry{Verb: ledger.Drain, Node: node}, "node", "drain", node)
}

// Undrain lets a node take jobs again.
func (c *Cluster) Undrain(node string) error {
	return c.call(ledger.Entry{Verb: ledger.Undrain, Node: node}, "node", "undrain", node)
}

// call does what a user asks for, and writes it down.
func (c *Cluster) call(e ledger.Entry, args ...string) error {
	c.t.Helper()
	e.What, e.Call = ledger.Call, c.Ledger.Now()
	_, err := c.Try(args...)
	e.Outcome = outcome(err)
	if err != nil {
		e.Error = err.Error()
	}
	c.write(e)
	return err
}

// refusals are in what the command says when it has certainly done nothing.
var refusals = []string{"there is no job", "already", "has not ended", "only one that has ended", "is not in namespace", "no server answers"}

// outcome is what is certain after a command: that it was done, that nothing was,
// or neither.
func outcome(err error) string {
	if err == nil {
		return ledger.OK
	}
	for _, words := range refusals {
		if strings.Contains(err.Error(), words) {
			return ledger.Refused
		}
	}
	return ledger.Unknown
}

// Read looks at a job and writes down what there is. Without an answer it writes
// nothing.
func (c *Cluster) Read(job string) {
	c.t.Helper()
	e := ledger.Entry{What: ledger.Read, Job: job, Call: c.Ledger.Now()}
	out, err := c.Try("job", "get", job, "--output", "json")
	switch {
	case err != nil && !strings.Contains(err.Error(), "there is no job"):
		return
	case err == nil:
		var j oracle.Job
		if err := json.Unmarshal([]byte(out), &j); err != nil {
			c.t.Errorf("cluster: job %s: decode %q: %v", job, out, err)
			return
		}
		e.State, e.Revision, e.Attempt, e.Fence, e.Node = j.State, j.Revision, j.Attempt, j.Fence, j.Node
	}
	c.write(e)
}

// listAll is the limit of a list that has none.
const listAll = "10000000"

// Jobs lists all jobs.
func (c *Cluster) Jobs() []oracle.Job {
	c.t.Helper()
	jobs, err := c.listed()
	if err != nil {
		c.t.Fatal(err)
	}
	return jobs
}
