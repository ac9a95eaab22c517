package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// The stories of one owner, which dies at each of its writes. By their policies what
// becomes of a tick does not depend on how late it was found.
var crashes = map[string]struct {
	schedule spec.Schedule
	runs     int // how many of the five ticks become jobs, if nobody ends one
}{
	"plain":      {spec.Schedule{}, 5},
	"jitter":     {spec.Schedule{Jitter: spec.Duration(300 * time.Millisecond)}, 5},
	"skip":       {spec.Schedule{Overlap: spec.Overlap{Policy: spec.OverlapSkip}}, 1},
	"queue":      {spec.Schedule{Overlap: spec.Overlap{Policy: spec.OverlapQueue, Limit: 2}}, 3},
	"three runs": {spec.Schedule{MaxRuns: 3}, 3},
}

// Whatever write an owner dies before or after, and whatever answer it does not get,
// each tick has one record, as if nothing had happened.
func TestCrashPoints(t *testing.T) {
	for name, c := range crashes {
		c.schedule.Name, c.schedule.Every = "s", spec.Duration(2*time.Second)
		t.Run(name, func(t *testing.T) {
			want, writes := "", 0
			tell := func(t *testing.T, n int, fault natstest.Fault) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					got, count := newWorld(t, srv).crash(c.schedule, n, fault)
					if n == 0 {
						want, writes = got, count
					}
					if got != want {
						t.Errorf("got\n%s\nwant\n%s", got, want)
					}
				})
			}
			tell(t, 0, natstest.Pass)
			if n := strings.Count(want, "\n"); n != 5 && c.schedule.MaxRuns == 0 {
				t.Fatalf("%d ticks have records, want 5:\n%s", n, want)
			}
			if n := strings.Count(want, "runs"); n != c.runs {
				t.Fatalf("%d ticks run, want %d:\n%s", n, c.runs, want)
			}
			for n := 1; n <= writes; n++ {
				for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer, natstest.Hold} {
					t.Run(fmt.Sprint(n, " ", fault), func(t *testing.T) { tell(t, n, fault) })
				}
			}
		})
	}
}

// crash lets an owner make five ticks, and meet a fault at its n-th write that wants an
// answer. It returns what is on record in the end, and how many writes there were.
func (w *world) crash(s spec.Schedule, n int, fault natstest.Fault) (record string, writes int) {
	w.Helper()
	dead := make(chan struct{})
	a := w.own("a", func(wr natstest.Write) natstest.Fault {
		if wr.Reply == "" {
			return natstest.Pass
		}
		if writes++; writes != n {
			return natstest.Pass
		}
		if fault == natstest.DownBefore || fault == natstest.DownAfter {
			close(dead)
		}
		return fault
	})
	time.Sleep(time.Until(time.Now().Truncate(2 * time.Second).Add(3 * time.Second)))
	s.End = time.Now().Truncate(2 * time.Second).Add(11 * time.Second)
	w.apply(s)
	select {
	case <-dead:
	case <-time.After(10 * time.Second):
	}
	if time.Sleep(time.Second); writes >= n && n > 0 && fault != natstest.LoseAnswer {
		a.stop()
		w.own("b", nil)
	}
	time.Sleep(30 * time.Second)
	if fault == natstest.Hold {
		a.link.Release() // what landed late changes nothing
	}
	for _, j := range w.ticks("s") {
		what := "runs"
		if j.State == machine.Skipped {
			what = j.Error.Code
		}
		record += fmt.Sprintf("%s %d %s\n", j.Tick.At.Format("05"), j.Tick.Number, what)
	}
	return record, writes
}
