package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// Many jobs are due at random milliseconds. None starts early, and few are late.
func TestLateness(t *testing.T) {
	tell(t, scenario{name: "jobs at random times", one: short, three: full, tell: random})
}

// delays are how late handlers started, in order.
type delays []time.Duration

// String is what matters of them.
func (d delays) String() string {
	if len(d) == 0 {
		return "nothing was due"
	}
	at := func(q float64) time.Duration {
		return d[min(len(d)-1, int(q*float64(len(d))))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%d started late by %v at p50, %v at p99, %v at most", len(d), at(0.5), at(0.99), d[len(d)-1].Round(time.Millisecond))
}

// delaysOf returns how late first attempts started that were due at a time.
func delaysOf(entries []ledger.Entry) (all delays) {
	due := map[string]int64{}
	for _, e := range entries {
		switch {
		case e.What == ledger.Call && e.Verb == ledger.Submit && e.Due > 0:
			due[e.Job] = e.Due
		case e.What == ledger.Start && e.Attempt == 1 && max(e.Due, due[e.Job]) > 0:
			all = append(all, time.Duration(e.At-max(e.Due, due[e.Job])))
		}
	}
	slices.Sort(all)
	return all
}

// lateness is how late ticks began of schedules without jitter.
func (s *shift) lateness() delays {
	return delaysOf(slices.DeleteFunc(s.Entries(), func(e ledger.Entry) bool {
		return slices.ContainsFunc(s.tables, func(t actor.Timetable) bool {
			return t.Definition.Jitter > 0 && strings.HasPrefix(e.Schedule, t.Prefix)
		})
	}))
}

// random submits jobs that are due at random times.
func random(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.Serve("s1", cluster.NodeOptions{})
	c.Worker("w1", cluster.NodeOptions{Slots: 100})
	c.Worker("w2", cluster.NodeOptions{Slots: 100})
	count, within := scale(0, 500, 10_000), scale(0, 10*time.Second, time.Minute)
	from := time.Now().Add(scale(0, 4*time.Second, 20*time.Second))
	c.Submit(cluster.Load{Prefix: "r", Count: count, Work: actor.Work{}, Args: []string{
		"--at", from.UTC().Format(time.RFC3339Nano), "--within", within.String(),
	}}).Await()
	c.AwaitEnded(count)
	wantSucceeded(t, c)
	c.Judge()
	all := delaysOf(c.Entries())
	t.Logf("figure: %v", all)
	if len(all) != count {
		t.Fatalf("%d jobs were due at a time, want %d", len(all), count)
	}
	if all[0] < -oracle.Drift {
		t.Errorf("one started %v early", -all[0])
	}
	if p50, p99 := all[count/2], all[count*99/100]; *told == full && (p50 > 20*time.Millisecond || p99 > 250*time.Millisecond) {
		t.Errorf("they are %v, want 20ms at p50 and 250ms at p99 at most", all)
	}
}
