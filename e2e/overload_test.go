package e2e_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
)

// There is more to do than is done: no worker, workers that never answer, and
// no room to store anything.
func TestOverload(t *testing.T) {
	tell(t,
		scenario{"no worker", short, full, noWorker},
		scenario{"all due at once", short, full, dueAtOnce},
		scenario{"storage full", short, full, storageFull},
	)
}

// Nobody works, and jobs are submitted all the same, some of which may not
// wait for long. Then somebody does.
func noWorker(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.Serve("s1", cluster.NodeOptions{})
	idle := scale(5, 20, 300)
	patient := cluster.Load{Prefix: "patient-", Count: idle, Rate: 1}
	hasty := cluster.Load{Prefix: "hasty-", Count: idle, Rate: 1, Args: []string{"--queue-timeout", "5s"}}
	submitters := []*cluster.Node{c.Submit(patient), c.Submit(hasty)}
	c.After(time.Duration(idle) * time.Second) // which may be more than the harness's patience
	for _, s := range submitters {
		s.Await()
	}
	patient.Rate = 0
	c.Submit(patient).Await() // once more: the same jobs
	c.Worker("w1", cluster.NodeOptions{})
	late := cluster.Load{Prefix: "late-", Count: 10, Args: []string{"--queue-timeout", "1h"}}
	c.Submit(late).Await()
	c.AwaitEnded(2*idle + late.Count)

	started := map[string]bool{}
	for _, e := range c.Entries() {
		started[e.Job] = started[e.Job] || e.What == ledger.Start
	}
	jobs := c.Jobs()
	if got, want := len(jobs), 2*idle+late.Count; got != want {
		t.Errorf("there are %d jobs, want %d", got, want)
	}
	for _, j := range jobs {
		failed := j.State == "failed"
		switch {
		case failed == started[j.ID]:
			t.Errorf("job %s is %s, and it was started: %v", j.ID, j.State, started[j.ID])
		case failed && !strings.Contains(j.ID, ".hasty-"):
			t.Errorf("job %s failed, and it could wait", j.ID)
		case !failed && j.ID == "work.hasty-0":
			t.Errorf("job %s is %s, and it could not wait for the worker", j.ID, j.State)
		}
	}
	c.Judge()
}

// Thousands of jobs are due in the same moment. Another time the same, while
// the workers of one queue accept and never answer.
func dueAtOnce(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.Serve("s1", cluster.NodeOptions{})
	r := rush{t: t, c: c, queues: []string{"a", "b", "c", "d"}}
	for _, q := range r.queues {
		c.Worker("w"+q, cluster.NodeOptions{Queues: []string{q}, Slots: 20})
	}
	rounds := scale(1, 2, 5)
	for range rounds {
		r.begin("alone")
	}
	c.Worker("stalling", cluster.NodeOptions{Queues: []string{"stalled"}, Slots: 10})
	stalled := cluster.Load{Queue: "stalled", Prefix: "for-ever-", Count: 50, Work: actor.Work{Stall: true}}
	c.Submit(stalled).Await()
	for range rounds {
		r.begin("beside workers that never answer")
	}
	for n := range stalled.Count {
		if err := c.Cancel(fmt.Sprint("stalled.for-ever-", n)); err != nil {
			t.Error(err)
		}
	}
	c.AwaitEnded(r.jobs + stalled.Count)
	c.Judge()
}

// rush is jobs of several queues that are due in one moment.
type rush struct {
	t      *testing.T
	c      *cluster.Cluster
	queues []string
	rounds int
	jobs   int // that there were
}

// begin submits them, waits until they have ended, and prints how late they were
// started.
func (r *rush) begin(when string) {
	r.t.Helper()
	r.rounds++
	prefix, count := fmt.Sprintf("round%d-", r.rounds), scale(250, 2000, 5000)/len(r.queues)
	due := time.Now().Add(scale(4*time.Second, 6*time.Second, 30*time.Second)).Truncate(time.Second)
	var submitters []*cluster.Node
	for _, q := range r.queues {
		submitters = append(submitters, r.c.Submit(cluster.Load{
			Queue: q, Prefix: prefix, Count: count, Work: actor.Work{For: 5}, Args: []string{"--at", due.Format(time.RFC3339)},
		}))
		r.jobs += count
	}
	for _, s := range submitters {
		s.Await()
	}
	r.c.AwaitEnded(r.jobs)
	late := latencies(r.c.Entries(), prefix, due)
	r.t.Logf("%d jobs due at once, %s: started p50 %v, p99 %v late", len(late), when, quantile(late, 0.5), quantile(late, 0.99))
}

// Storage is full. New jobs are refused, those that run end while they can, and
// when there is room again all goes on.
func storageFull(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers, MaxStore: 64 << 20})
	b := staff(t, c)
	for round := range scale(1, 1, 3) {
		b.add(5 * time.Second)
		c.After(2 * time.Second)
		c.Fill()
		c.Note("full")
		out, err := c.Try("job", "submit", "work.do", "--id", fmt.Sprintf("refused-%d", round))
		if err == nil || !strings.Contains(fmt.Sprint(err), "storage is nearly full") {
			t.Errorf("a job was submitted although storage is full: %v\n%s", err, out)
		}
		c.After(scale(2*time.Second, 10*time.Second, 30*time.Second))
		c.Free()
		b.probe("after there was room again")
	}
	b.finish()
}

// latencies is how late the jobs of a prefix were started for the first time,
// after the moment in which they were due.
func latencies(entries []ledger.Entry, prefix string, due time.Time) []time.Duration {
	first := map[string]time.Duration{}
	for _, e := range entries {
		if _, seen := first[e.Job]; e.What == ledger.Start && !seen && strings.Contains(e.Job, "."+prefix) {
			first[e.Job] = e.Time().Sub(due)
		}
	}
	var all []time.Duration
	for _, late := range first {
		all = append(all, late)
	}
	slices.SortFunc(all, cmp.Compare[time.Duration])
	return all
}

// quantile is the value below which that share of the sorted values lies.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
}
