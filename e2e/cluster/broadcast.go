package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// Broadcast is a job that a user has all nodes do, or, with Shards, one in so many
// pieces, or, with On, one that a node does alone. Its kind is <queue>.do.
type Broadcast struct {
	ID    string // the local one
	Queue string // Default: work
	Work  actor.Work

	OnLost, Done string        // Default: millrace's
	Deadline     time.Duration // after which it fails; 0: never
	MaxParallel  int           // parts at a time; 0: all
	Selector     string        // labels of its nodes, such as zone=a. Default: all nodes
	MaxAttempts  int           // failures that fail a part. Default: the handler's

	Shards int
	On     string // a node
	Else   string // of a job for one node
}

// job is its whole ID.
func (b Broadcast) job() string { return cmp.Or(b.Queue, "work") + "." + b.ID }

// args are the command that a user gives.
func (b Broadcast) args() []string {
	work, _ := json.Marshal(b.Work) // which is numbers
	kind := actor.Kind(cmp.Or(b.Queue, "work"))
	args := []string{"broadcast", kind}
	if b.Shards > 0 || b.On != "" {
		args = []string{"job", "submit", kind}
	}
	args = append(args, "--id", b.ID, "--input", string(work))
	add := func(flag, value string) {
		if value != "" && value != "0" && value != "0s" {
			args = append(args, flag, value)
		}
	}
	add("--on-lost", b.OnLost)
	add("--done", b.Done)
	add("--deadline", b.Deadline.String())
	add("--max-parallel", strconv.Itoa(b.MaxParallel))
	add("--max-attempts", strconv.Itoa(b.MaxAttempts))
	add("--shards", strconv.Itoa(b.Shards))
	add("--on", b.On)
	add("--else", b.Else)
	if b.Shards > 0 {
		add("--select", b.Selector)
	} else {
		add("--selector", b.Selector)
	}
	return args
}

// Dispatch has a user start a broadcast, which is there when it returns without an
// error, and returns its ID. Nobody tries that again.
func (c *Cluster) Dispatch(b Broadcast) (job string, err error) {
	c.t.Helper()
	e := ledger.Entry{What: ledger.Call, Verb: ledger.Submit, Job: b.job(), Count: b.Shards, Call: c.Ledger.Now()}
	if b.Else != "any" {
		e.Part = b.On
	}
	_, err = c.Try(b.args()...)
	if e.Outcome = outcome(err); err != nil {
		e.Error = err.Error()
	} else {
		e.Outcome = ledger.Created
	}
	c.write(e)
	return e.Job, err
}

// MustDispatch is [Cluster.Dispatch], and ends the test if that fails.
func (c *Cluster) MustDispatch(b Broadcast) string {
	c.t.Helper()
	job, err := c.Dispatch(b)
	if err != nil {
		c.t.Fatal(err)
	}
	return job
}

// Report is a broadcast or a sharded job as a user sees it.
type Report struct {
	oracle.Job
	Parts []Part `json:"parts"`
}

// Part is what became of a part of it.
type Part struct {
	Node     string           `json:"node"`
	Shard    int              `json:"shard"`
	State    string           `json:"state"`
	Attempts []oracle.Attempt `json:"attempts"`
}

// String is the report in short: the state, and the nodes in order, each with the
// state of its part and how many attempts that has.
func (r Report) String() string {
	var parts []string
	for _, p := range r.Parts {
		parts = append(parts, fmt.Sprintf("%s:%s:%d", p.Node, p.State, len(p.Attempts)))
	}
	slices.Sort(parts)
	return strings.Join(append([]string{r.State}, parts...), " ")
}

// Report looks at a broadcast or a sharded job.
func (c *Cluster) Report(job string) (r Report, err error) {
	c.t.Helper()
	out, err := c.Try("broadcast", "get", job, "--output", "json")
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("cluster: broadcast %s: decode %q: %w", job, out, err)
	}
	return r, nil
}

// AwaitNoMail waits until no mailbox has anything, but those of some nodes.
func (c *Cluster) AwaitNoMail(but map[string]bool) {
	c.t.Helper()
	js := c.jetstream()
	c.Await("no mailbox has anything", func() bool {
		nodes, err := mailed(c.ctx, js)
		return err == nil && !slices.ContainsFunc(nodes, func(node string) bool { return !but[node] })
	})
}

// mailed returns whose mailboxes have something, once for each item.
func mailed(ctx context.Context, js jetstream.JetStream) (nodes []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, "mr_default_mail")
	if err != nil {
		return nil, fmt.Errorf("cluster: look into mailboxes: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, fmt.Errorf("cluster: look into mailboxes: %w", err)
	}
	for subject := range info.State.Subjects {
		nodes = append(nodes, strings.Split(subject, ".")[3]) // mr.default.mail.<node>.…
	}
	return nodes, nil
}

// AwaitReport waits until something holds for a broadcast.
func (c *Cluster) AwaitReport(job, what string, holds func(Report) bool) Report {
	c.t.Helper()
	var last Report
	c.Await(job+": "+what, func() bool {
		r, err := c.Report(job)
		if err == nil {
			last = r
		}
		return err == nil && holds(r)
	})
	return last
}

// AwaitPart waits until the part of a node, or a shard, has started so many times,
// and returns that start.
func (c *Cluster) AwaitPart(job, part string, attempt int) ledger.Entry {
	c.t.Helper()
	return c.AwaitEntry(fmt.Sprintf("attempt %d of part %s of %s starts", attempt, part, job), func(e ledger.Entry) bool {
		return e.What == ledger.Start && e.Parent == job && e.Part == part && e.Attempt == attempt
	})
}
