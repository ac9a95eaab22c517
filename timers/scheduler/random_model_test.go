package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

// model is what must be, by what people have said. It also plays the workers.
type model struct {
	*random
	rng *rand.Rand

	mu       sync.Mutex
	versions map[string][]version // by schedule
	overlaps map[string]spec.Overlap
	jobs     map[string]machine.Job
	busy     map[string]bool
	again    map[string]int       // how often a job was redriven
	decided  map[string]time.Time // when it was decided what becomes of a job
	held     map[string]time.Time // when a cursor was sent that lands late or never, by what it says
	known    map[uint64]bool      // the revisions of definitions that an owner knew of
	reached  map[string][]reach   // by schedule, as its cursors were stored
	working  sync.WaitGroup
}

// version is a definition as it was stored.
type version struct {
	stored, since time.Time
	every         time.Duration // 0: paused or deleted
	rate          spec.Duration // also if it is paused
	revision      uint64
	created       time.Time
	moved         bool // its ticks are others than before
	deleted       bool
}

func newModel(r *random) *model {
	return &model{
		random: r, rng: rand.New(rand.NewPCG(r.rng.Uint64(), 0)), versions: map[string][]version{}, overlaps: map[string]spec.Overlap{}, jobs: map[string]machine.Job{},
		busy: map[string]bool{}, again: map[string]int{}, decided: map[string]time.Time{}, held: map[string]time.Time{}, known: map[uint64]bool{},
		reached: map[string][]reach{},
	}
}

// planned notes which jobs of a schedule may go on, which never changes.
func (m *model) planned(s spec.Schedule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overlaps[s.Name] = s.Overlap
}

func (m *model) defined(entry kv.Entry[scheduler.Stored]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := entry.Value
	v := version{stored: entry.Stored, since: s.Since, rate: s.Every, revision: entry.Revision, created: s.Created}
	if v.created.IsZero() {
		v.created = entry.Stored
	}
	if v.since.IsZero() {
		v.since = entry.Stored
	}
	if !s.IsPaused() {
		v.every = time.Duration(s.Every)
	}
	was := m.versions[s.Name]
	if n := len(was); n > 0 && was[n-1].rate != v.rate {
		v.moved = true
	}
	m.versions[s.Name] = append(was, v)
}

func (m *model) dropped(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.versions[name] = append(m.versions[name], version{stored: now, since: now, created: now, deleted: true})
}

// holds notes that a write is held, which may be a cursor.
func (m *model) holds(w natstest.Write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[string(w.Data)] = time.Now()
}

func (m *model) redriven(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.again[id]++
}

// watch sees every change of a job, checks it, and lets workers work, until stop.
func (m *model) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := m.process.jobs.Watch(ctx, ">", func(e kv.Event[machine.Job]) {
			switch e.Kind {
			case kv.Put:
				m.see(e.Entry)
			case kv.Deleted:
				m.Errorf("%s is gone", e.Entry.Key)
			}
		})
		if err != nil && ctx.Err() == nil {
			m.Errorf("watch: %v", err)
		}
	}()
	m.working.Go(func() {
		err := scheduler.Cursors(m.pub, ns).Watch(ctx, "schedule.*", func(e kv.Event[tick.Cursor]) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if e.Kind != kv.Put {
				return
			}
			m.known[e.Entry.Value.Revision] = true
			m.reach(e.Entry)
			said, err := json.Marshal(e.Entry.Value)
			if err != nil {
				m.Errorf("encode the cursor %s: %v", e.Entry.Key, err)
			}
			at, held := m.held[string(said)]
			if !held {
				at = e.Entry.Stored
			}
			for _, act := range e.Entry.Value.Doing {
				if m.decided[act.ID].IsZero() {
					m.decided[act.ID] = at
				}
			}
		})
		if err != nil && ctx.Err() == nil {
			m.Errorf("watch: %v", err)
		}
	})
	return func() { cancel(); <-done; m.working.Wait() }
}

func (m *model) see(entry kv.Entry[machine.Job]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := entry.Value
	was, known := m.jobs[j.ID]
	if known && !was.Created.Equal(j.Created) {
		m.Errorf("%s was made at %v and at %v", j.ID, was.Created, j.Created)
	}
	if j.Attempt > 1+m.again[j.ID] {
		m.Errorf("%s has attempt %d, and was redriven %d times", j.ID, j.Attempt, m.again[j.ID])
	}
	m.jobs[j.ID] = j
	m.bounded(j)
	ready := j.State == machine.Pending || j.State == machine.Scheduled && j.Wait == machine.WaitDelay
	if ready && !m.busy[j.ID] {
		m.busy[j.ID] = true
		takes, fails := time.Duration(m.rng.IntN(6000))*time.Millisecond, m.rng.IntN(5) == 0
		m.working.Go(func() {
			m.work(entry, takes, fails)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.busy[j.ID] = false
		})
	}
}

// remind tells an owner who waits for a turn, as the reconciler does.
func (m *model) remind(o *owner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, j := range m.jobs {
		if j.Wait == machine.WaitTurn {
			o.Wants(j.Tick.Schedule, id)
		}
	}
}

// bounded fails the test if more jobs go on, or wait, than the policy of a schedule
// allows. The caller holds the lock.
func (m *model) bounded(changed machine.Job) {
	if !changed.Tick.Turn || changed.State.Final() {
		return
	}
	o, vs := m.overlaps[changed.Tick.Schedule], m.versions[changed.Tick.Schedule]
	most := map[string]int{spec.OverlapAllow: o.Limit}[o.Policy]
	most = max(most, 1)
	var goOn, wait []string
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		j := m.jobs[id]
		switch {
		case j.Tick.Schedule != changed.Tick.Schedule || j.State.Final():
		case len(vs) > 0 && !j.Tick.At.After(vs[len(vs)-1].created): // of another life
		case j.Wait != machine.WaitTurn:
			goOn = append(goOn, id)
		case j.Tick.By == "" && j.Redriven.IsZero():
			wait = append(wait, id)
		}
	}
	if len(goOn) > most {
		m.Errorf("%v at %v: %d may go on, and %v do", o, time.Now().Format(time.TimeOnly), most, goOn)
	}
	if o.Policy == spec.OverlapQueue && len(wait) > o.Limit {
		m.Errorf("%v: %v wait", o, wait)
	}
}

// check compares what happened with what had to happen.
func (m *model) check() {
	m.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, j := range m.jobs {
		if !j.State.Final() {
			m.Errorf("%s is %s (%s) in the end", id, j.State, j.Wait)
		}
	}
	for name := range m.versions {
		m.checkTicks(name)
		m.checkMisfires(name)
		m.checkCursor(name)
	}
}

// seen is what became of a tick.
type seen struct {
	by  []string // the records that tell
	ran bool
}

// checkTicks compares the ticks of a schedule that have records, or lie in roll-ups,
// with those that were due.
func (m *model) checkTicks(name string) {
	m.Helper()
	due := m.due(name)
	found := m.told(name, due)
	for _, ms := range slices.Sorted(maps.Keys(due)) {
		s, at := found[ms], time.UnixMilli(ms).UTC().Format("15:04:05.000")
		switch {
		case s == nil && !m.isBlurred(name, ms):
			m.Errorf("%s: nothing is known of the tick at %s (%d)", name, at, ms)
		case s != nil && len(s.by) > 1:
			m.Errorf("%s: the tick at %s is in %v", name, at, s.by)
		}
	}
	for ms, s := range found {
		if !due[ms] && s.ran && !m.wasResumed(name, m.jobs[s.by[0]]) {
			m.Errorf("%s: %v ran, and was not due", name, s.by)
		}
	}
}

// wasResumed reports whether a schedule was resumed between a tick and the start of its
// job: an owner that did not know that it was paused may have made that.
func (m *model) wasResumed(name string, j machine.Job) bool {
	return slices.ContainsFunc(m.versions[name], func(v version) bool {
		return v.every > 0 && j.Tick.At.Before(v.stored) && j.Started.After(v.stored)
	})
}

// told notes which ticks records tell of. A roll-up stands for ticks that have no
// record of their own.
func (m *model) told(name string, due map[int64]bool) map[int64]*seen {
	m.Helper()
	found, rolls := map[int64]*seen{}, []machine.Job{}
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		j := m.jobs[id]
		if j.Tick.Schedule != name || j.Tick.By != "" {
			continue
		}
		ms := j.Tick.At.UnixMilli()
		if found[ms] == nil {
			found[ms] = &seen{}
		}
		found[ms].by, found[ms].ran = append(found[ms].by, id), found[ms].ran || j.Attempt > 0
		if j.Tick.More != nil {
			rolls = append(rolls, j)
		}
	}
	for _, j := range rolls {
		n, at := int64(0), j.Tick.At.UnixMilli()
		for ms := range due {
			if ms > at && ms <= j.Tick.More.Until.UnixMilli() && found[ms] == nil {
				found[ms] = &seen{by: []string{j.ID}}
				n++
			}
		}
		// Nobody may have seen when it was paused, or that it was, and counted on.
		more := n < j.Tick.More.Count && (j.Error.Code == machine.SkipPaused || m.wasEdited(name, j.Tick.At, j.Tick.More.Until))
		if n != j.Tick.More.Count && !more && !m.isBlurred(name, at) {
			m.Errorf("%s stands for %d more until %v, want %d", j.ID, j.Tick.More.Count, j.Tick.More.Until, n)
		}
	}
	return found
}

// due returns the ticks of a schedule that were due, in ms since 1970.
func (m *model) due(name string) map[int64]bool {
	due := map[int64]bool{}
	vs := m.versions[name]
	for i, v := range vs {
		if v.every == 0 || i == len(vs)-1 {
			continue // the last one pauses or ends it
		}
		for at := v.since.Truncate(time.Millisecond).UnixMilli() + 1; !time.UnixMilli(at).After(vs[i+1].stored); at++ {
			if at%v.every.Milliseconds() == 0 && time.UnixMilli(at).After(v.since) {
				due[at] = true
			}
		}
	}
	return due
}

// checkMisfires compares ticks that were found late with the policy.
func (m *model) checkMisfires(name string) {
	m.Helper()
	most := map[string]int{"": 1, spec.MisfireSkip: 0, spec.MisfireAll: 5}[m.plans[name].Misfire.Policy]
	var late []machine.Job // which were found too late, and made all the same
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		j := m.jobs[id]
		if j.Tick.Schedule != name || j.Tick.By != "" {
			continue
		}
		made := j.Created.Sub(j.Tick.At)
		if at, ok := m.decided[id]; ok && at.Before(j.Created) {
			made = at.Sub(j.Tick.At)
		}
		switch {
		case made < 0:
			m.Errorf("%s was made %v early", id, -made)
		case j.Error != nil && j.Error.Code == machine.SkipMisfire && made < time.Minute:
			m.Errorf("%s was a misfire after %v", id, made)
		case (j.Error == nil || j.Error.Code != machine.SkipMisfire) && j.State != machine.Skipped && made > time.Minute+lease+5*time.Second:
			late = append(late, j)
		}
	}
	slices.SortFunc(late, func(a, b machine.Job) int { return a.Created.Compare(b.Created) })
	for i := range late {
		if i >= most && late[i].Created.Sub(late[i-most].Created) < 30*time.Second {
			made := make([]string, 0, most+1)
			for _, j := range late[i-most : i+1] {
				made = append(made, fmt.Sprintf("%s at %v, decided at %v", j.ID, j.Created.UnixMilli(), m.decided[j.ID].UnixMilli()))
			}
			m.Errorf("%s: at most %d ticks may be made up for at a time, and these were: %s", name, most, strings.Join(made, "; "))
		}
	}
}

// checkCursor fails the test unless a schedule is at rest.
func (m *model) checkCursor(name string) {
	m.Helper()
	entry, err := scheduler.Cursors(m.pub, ns).Get(m.Context(), scheduler.Key(name))
	c := entry.Value
	switch {
	case m.plans[name].deleted && !errors.Is(err, kv.ErrNotFound):
		m.Errorf("%s has a cursor, and was deleted: %v", name, err)
	case m.plans[name].deleted:
	case err != nil:
		m.Error(err)
	case len(c.Doing)+len(c.Holders)+len(c.Queue) > 0 || c.Late != nil || c.Unmade != nil:
		m.Errorf("%s is not at rest: %+v", name, c)
	}
}
