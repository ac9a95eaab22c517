package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// shop is a place where schedules have jobs done. It notes what handlers did, by their
// own account.
type shop struct {
	*testing.T
	srv      *server.Server
	*process // of somebody who only asks

	mu    sync.Mutex
	runs  map[string][]*shift // by schedule
	going map[string]int      // shifts
	most  map[string]int      // of them at once
}

// shift is one run of a handler.
type shift struct {
	job                string
	attempt            int
	began, told, ended time.Time // told is when its context ended, if that did
}

func newShop(t *testing.T, srv *server.Server) *shop {
	t.Helper()
	return &shop{
		T: t, srv: srv, process: start(t, srv, "asker", nil),
		runs: map[string][]*shift{}, going: map[string]int{}, most: map[string]int{},
	}
}

// job is one that takes as many seconds as its input says.
func (s *shop) job() *engine.Job[float64, any] {
	return engine.NewJob("shop.work", func(ctx context.Context, seconds float64) (any, error) {
		r, leave := s.enter(engine.JobFrom(ctx))
		defer leave()
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			return nil, nil
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			r.told = time.Now()
			return nil, context.Cause(ctx)
		}
	})
}

func (s *shop) enter(cur engine.Current) (r *shift, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, _, _ := strings.Cut(strings.TrimPrefix(cur.ID, "shop."), "=")
	r = &shift{job: cur.ID, attempt: cur.Attempt, began: time.Now()}
	s.runs[name] = append(s.runs[name], r)
	s.going[name]++
	s.most[name] = max(s.most[name], s.going[name])
	return r, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.going[name]--
		r.ended = time.Now()
	}
}

// of returns what was run for a schedule, in the order of the starts.
func (s *shop) of(schedule string) (list []shift) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs[schedule] {
		list = append(list, *r)
	}
	return list
}

// hire starts a process that works, and no more.
func (s *shop) hire(node string) *natstest.Link {
	s.Helper()
	return s.begin(node, alone(100), s.job())
}

// own starts a process that wants to be the owner, and has nothing else to do.
func (s *shop) own(node string) *natstest.Link {
	s.Helper()
	return s.begin(node, engine.WorkerOptions{}, engine.NewJob("idle", waits))
}

// begin starts a process. It dies by its link going down: whatever it does then, nobody
// hears of it.
func (s *shop) begin(node string, opts engine.WorkerOptions, def engine.Definition) *natstest.Link {
	s.Helper()
	p := start(s.T, s.srv, node, nil)
	p.run(opts, def)
	return p.link
}

// every applies a schedule of jobs that take some seconds.
func (s *shop) every(period time.Duration, takes float64, def engine.Schedule) {
	s.Helper()
	if def.Every == 0 && def.Cron == "" {
		def.Every = spec.Duration(period)
	}
	def.Job, def.Input = "shop.work", json.RawMessage(fmt.Sprint(takes))
	mustApply(s.T, s.Engine, def)
}

// told fails the test unless each tick of a schedule from one on, and before another,
// is told of by one record, and returns the records of ticks.
func (s *shop) told(schedule string, from, to time.Time, period time.Duration) (list []engine.JobInfo) {
	s.Helper()
	next, number := from, int64(0)
	for _, j := range s.ticks(schedule) {
		if j.Tick.By != "clock" || j.Due.Before(from) || !j.Due.Before(to) {
			continue
		}
		if number == 0 {
			number = j.Tick.Number
		}
		if !j.Due.Equal(next) || j.Tick.Number != number {
			s.Errorf("%s: after the ticks before %v comes number %d at %v, want %d", schedule, next, j.Tick.Number, j.Due, number)
		}
		number += j.Tick.Count
		next = j.Due.Add(time.Duration(j.Tick.Count) * period)
		list = append(list, j)
	}
	if next.Before(to) {
		s.Errorf("%s: nothing is known of the ticks from %v on, before %v", schedule, next, to)
	}
	return list
}

// ticks returns the jobs of a schedule, the oldest tick first.
func (s *shop) ticks(schedule string) []engine.JobInfo {
	s.Helper()
	list, err := s.List(s.Context(), engine.ListOptions{Schedule: schedule, Limit: 10_000})
	if err != nil {
		s.Fatal(err)
	}
	slices.SortFunc(list, func(a, b engine.JobInfo) int { return a.Due.Compare(*b.Due) })
	return list
}

// count counts jobs by their states and by the codes of those that were skipped, and
// these by the ticks that they stand for.
func count(jobs []engine.JobInfo) map[string]int {
	counts := map[string]int{}
	for _, j := range jobs {
		what := j.State
		if what == "skipped" {
			what = j.Error.Code
		}
		counts[what] += int(j.Tick.Count)
	}
	return counts
}

// opens returns the next whole minute that leaves owners the time to begin.
func (s *shop) opens() time.Time {
	return time.Now().Add(30 * time.Second).Truncate(time.Minute).Add(time.Minute)
}
