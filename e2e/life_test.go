package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// life is what the ledger and the record tell of one job.
type life struct {
	id     string
	starts []ledger.Entry
	ends   []ledger.Entry
	record oracle.Job
}

// livesOf returns the life of each job that there is, by ID.
func livesOf(c *cluster.Cluster) map[string]*life {
	lives := map[string]*life{}
	for _, job := range c.Jobs() {
		lives[job.ID] = &life{id: job.ID, record: job}
	}
	for _, e := range c.Entries() {
		l := lives[e.Job]
		switch {
		case l == nil:
		case e.What == ledger.Start:
			l.starts = append(l.starts, e)
		case e.What == ledger.End:
			l.ends = append(l.ends, e)
		}
	}
	return lives
}

// wantSucceeded returns all jobs, of which none has ended otherwise.
func wantSucceeded(t *testing.T, c *cluster.Cluster) []oracle.Job {
	t.Helper()
	jobs := c.Jobs()
	for _, j := range jobs {
		if j.State != "succeeded" {
			t.Errorf("job %s is %s: %+v", j.ID, j.State, j.Error)
		}
	}
	return jobs
}

// awaitStarts waits until so many handlers have started.
func awaitStarts(c *cluster.Cluster, n int) {
	c.Await(fmt.Sprintf("%d handlers have started", n), func() bool {
		starts := 0
		for _, e := range c.Entries() {
			if e.What == ledger.Start {
				starts++
			}
		}
		return starts >= n
	})
}

// obeyed counts the handlers that gave up since the lease was lost.
func (l *life) obeyed() int {
	n := 0
	for _, e := range l.ends {
		if e.Outcome == ledger.Obeyed && e.Cause == ledger.LeaseLost {
			n++
		}
	}
	return n
}

// end is how the handler of an attempt ended, or an empty entry.
func (l *life) end(attempt int) ledger.Entry {
	i := slices.IndexFunc(l.ends, func(e ledger.Entry) bool { return e.Attempt == attempt })
	if i < 0 {
		return ledger.Entry{}
	}
	return l.ends[i]
}

// nodes are those on which the handlers started.
func (l *life) nodes() []string {
	var list []string
	for _, e := range l.starts {
		list = append(list, e.Node)
	}
	return list
}

// outcomes are those of the attempts that the record lists.
func (l *life) outcomes() []string {
	var list []string
	for _, a := range l.record.Attempts {
		list = append(list, a.Outcome)
	}
	return list
}

// accepted is the node whose result the record has.
func (l *life) accepted() string {
	nonce := l.record.Nonce()
	for _, e := range l.ends {
		if nonce != "" && e.Nonce == nonce {
			return e.Node
		}
	}
	return ""
}

// onlyObeyedAgain checks what holds for a job while no process dies and nobody
// judges one: a handler that finished is not run again (I8), and one that gave
// up since its lease was lost is, without a failure.
func (l *life) onlyObeyedAgain(t *testing.T) {
	t.Helper()
	if want := 1 + l.obeyed(); l.record.State != "succeeded" || l.record.Failures != 0 || len(l.starts) != want {
		t.Errorf("%s is %s after %d failures, started on %v; want it succeeded without any, started %d times",
			l.id, l.record.State, l.record.Failures, l.nodes(), want)
	}
}

// ms is a duration as it stands in the input of a job.
func ms(d time.Duration) int { return int(d.Milliseconds()) }

// since is the time from a moment of the ledger's to an entry.
func since(at int64, e ledger.Entry) time.Duration {
	return time.Duration(e.At - at).Round(10 * time.Millisecond)
}
