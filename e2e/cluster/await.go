package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
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

// After goes on when d of the scenario has passed.
func (c *Cluster) After(d time.Duration) {
	c.t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.t.Context().Done():
		c.t.Fatal("cluster: the test has ended before its scenario")
	}
}

// The listing of all jobs is dear, so it is asked for when the ledger says that
// there is something to see, and in any case now and then.
const (
	listAtMost  = time.Second
	listAtLeast = 10 * time.Second
)

// AwaitEnded waits until so many jobs have ended.
func (c *Cluster) AwaitEnded(n int) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	best, listed := 0, time.Time{}
	holds := func() bool {
		since := time.Since(listed)
		if since < listAtMost || (since < listAtLeast && c.ended.count(c.ledgerPath()) < n) {
			return false
		}
		listed = time.Now()
		ended := 0
		for _, j := range c.Jobs() {
			if j.Ended() {
				ended++
			}
		}
		if ended > best {
			best, deadline = ended, time.Now().Add(patience)
		}
		return best >= n
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			c.t.Fatalf("cluster: waited in vain until %d jobs have ended: %d have", n, best)
		}
		select {
		case <-tick.C:
		case <-c.t.Context().Done():
			c.t.Fatalf("cluster: the test has ended before %d jobs: %d have", n, best)
		}
	}
}

// ends counts jobs whose handler has ended, as the ledger grows.
type ends struct {
	mu     sync.Mutex
	offset int64
	jobs   map[string]bool
}

// count returns how many jobs there are that a handler has done with, for all
// that the ledger knows.
func (e *ends) count(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
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
