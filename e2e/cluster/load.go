package cluster

import (
	"cmp"
	"encoding/json"
	"strconv"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/ledger"
)

// Load is jobs that a submitter submits: <queue>.<prefix>0 and so on, of the kind
// <queue>.do.
type Load struct {
	Queue  string // Default: work
	Prefix string // of the local IDs; loads of one queue need different ones
	Count  int
	Rate   float64 // jobs a second; 0: as fast as possible
	Work   actor.Work
	// MaxAttempts is how many failures fail a job for good. Default: the
	// handler's.
	MaxAttempts int
	// Broadcast makes each of them a broadcast, and Shards a job of so many shards.
	Broadcast *actor.Broadcast
	Shards    int
	// Deadline is after how long a broadcast, or a sharded job, fails; 0: never.
	Deadline time.Duration
	// Clock is by how much the process's wall clock is wrong.
	Clock time.Duration
	// Args are more arguments of the program.
	Args []string
}

// Submit starts a process that submits jobs, each until it is certain that it
// is there. Await waits until it has.
func (c *Cluster) Submit(l Load) *Node {
	c.t.Helper()
	l.Queue = cmp.Or(l.Queue, "work")
	work, err := json.Marshal(l.Work)
	if err != nil {
		c.t.Fatal(err)
	}
	args := []string{
		"submit", "--queue", l.Queue, "--prefix", l.Prefix, "--count", strconv.Itoa(l.Count),
		"--rate", strconv.FormatFloat(l.Rate, 'g', -1, 64), "--work", string(work),
	}
	if l.MaxAttempts > 0 {
		args = append(args, "--max-attempts", strconv.Itoa(l.MaxAttempts))
	}
	if b := l.Broadcast; b != nil {
		args = append(args, "--broadcast", "--on-lost", b.OnLost, "--done", b.Done, "--max-parallel", strconv.Itoa(b.MaxParallel))
	}
	if l.Shards > 0 {
		args = append(args, "--shards", strconv.Itoa(l.Shards))
	}
	if l.Deadline > 0 {
		args = append(args, "--deadline", l.Deadline.String())
	}
	name := "submit-" + l.Queue + "-" + l.Prefix
	n := &Node{}
	n.c, n.name = c, name
	n.launch(command{role: ledger.Submitter, path: c.programs.actor(), args: append(args, l.Args...)}, l.Clock)
	return n
}
