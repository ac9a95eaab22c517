package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
	"github.com/millrace/millrace/internal/wait"
)

// patience is how long what must happen is waited for. It says nothing about how
// long that should take.
const patience = 3 * time.Minute

// Await waits until something holds, which it asks ten times a second.
func (c *Cluster) Await(what string, holds func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			c.t.Fatalf("cluster: waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// AwaitEntry waits until the ledger has an entry that matches, and returns the
// first one.
func (c *Cluster) AwaitEntry(what string, matches func(ledger.Entry) bool) ledger.Entry {
	c.t.Helper()
	var found ledger.Entry
	c.Await(what, func() bool {
		entries := c.Entries()
		i := slices.IndexFunc(entries, matches)
		if i >= 0 {
			found = entries[i]
		}
		return i >= 0
	})
	return found
}

// AwaitStart waits until a handler has started with an attempt of a job, and
// returns that.
func (c *Cluster) AwaitStart(job string, attempt int) ledger.Entry {
	c.t.Helper()
	return c.AwaitEntry(fmt.Sprintf("attempt %d of %s starts", attempt, job), func(e ledger.Entry) bool {
		return e.What == ledger.Start && e.Job == job && e.Attempt == attempt
	})
}

// After goes on when d of the scenario has passed.
func (c *Cluster) After(d time.Duration) {
	c.t.Helper()
	if !wait.For(c.t.Context(), d) {
		c.t.Fatal("cluster: the test has ended before its scenario")
	}
}

// The listing of all jobs is dear, so it is asked for when the ledger says that
// there is something to see, and in any case now and then.
const (
	listAtMost  = time.Second
	listAtLeast = 10 * time.Second
)

// AwaitEnded waits until so many jobs have ended, as long as more and more do. A
// broadcast counts once, when all of it has ended; those of schedules do not.
func (c *Cluster) AwaitEnded(n int) {
	c.t.Helper()
	began, before := time.Now(), 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ended := c.Ended(n)
		switch {
		case ended >= n:
			return
		case ended > before:
			began, before = time.Now(), ended
		case time.Since(began) > patience:
			c.t.Fatalf("cluster: waited in vain until %d jobs have ended: %d have", n, ended)
		}
		select {
		case <-tick.C:
		case <-c.t.Context().Done():
			c.t.Fatalf("cluster: the test has ended before %d jobs: %d have", n, ended)
		}
	}
}

// Ended returns how many jobs have ended, as of a moment ago, as [Cluster.AwaitEnded]
// counts. It is cheap while that cannot be n yet.
func (c *Cluster) Ended(n int) int {
	c.t.Helper()
	c.ended.mu.Lock()
	defer c.ended.mu.Unlock()
	since := time.Since(c.ended.listed)
	if since < listAtMost || (since < listAtLeast && c.ended.hint(c.ledgerPath()) < n) {
		return c.ended.last
	}
	jobs, err := c.listed()
	if err != nil {
		return c.ended.last // NATS is away
	}
	c.ended.listed, c.ended.last = time.Now(), over(jobs)
	return c.ended.last
}

// over counts the jobs that have ended with all their parts, which do not count
// themselves, nor do those that nobody has submitted.
func over(jobs []oracle.Job) (n int) {
	open := map[string]bool{}
	for _, j := range jobs {
		open[j.Parent] = open[j.Parent] || !j.Ended()
	}
	for _, j := range jobs {
		if j.Parent == "" && j.Schedule == "" && j.Ended() && !open[j.ID] {
			n++
		}
	}
	return n
}

// ends is what is known about how many jobs have ended.
type ends struct {
	mu     sync.Mutex
	last   int             // that had, when they were listed
	listed time.Time       // when that was
	offset int64           // up to which the ledger was read
	jobs   map[string]bool // that a handler is done with, says the ledger
}

// forget says that a job that had ended has not any more.
func (e *ends) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last, e.listed = 0, time.Time{}
}

// hint returns how many jobs may have ended, for all that the ledger knows.
func (e *ends) hint(path string) int {
	if e.jobs == nil {
		e.jobs = map[string]bool{}
	}
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	if _, err := file.Seek(e.offset, io.SeekStart); err != nil {
		return len(e.jobs)
	}
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return len(e.jobs) // at a line that is still being written, or at the end
		}
		e.offset += int64(len(line))
		var entry ledger.Entry
		if json.Unmarshal(line, &entry) == nil && entry.What == ledger.End && (entry.Outcome == ledger.Succeeded || entry.Outcome == ledger.Failed) {
			e.jobs[entry.Job] = true
		}
	}
}
