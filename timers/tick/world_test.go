package tick

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// world is everything that is stored: a definition, its cursor, and jobs. Every method
// is one read or one conditional write.
type world struct {
	now      time.Time
	sequence uint64

	def     *Definition // nil: there is none
	history []*Definition

	cursor   []byte // nil: there is none
	revision uint64 // of the cursor

	seen    map[time.Time]bool      // Since of the definitions of which cursors were stored
	decided map[time.Time]time.Time // ticks that stored cursors have decided, and their Since
	jobs    map[string]*record
	ids     []string // of all jobs, the oldest first
	going   int      // jobs of the schedule that have a turn and have not ended
	most    int      // the most there were
	leader  int      // who holds the lease; 0: nobody
	heard   int      // how often something happened that an owner hears of

	trouble []string
}

// stored is a record.
type record struct {
	job      machine.Job
	revision int
	ends     time.Time // when its attempt does
	fails    bool
}

var worldStart = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld() *world {
	return &world{now: worldStart, jobs: map[string]*record{}, seen: map[time.Time]bool{}, decided: map[time.Time]time.Time{}}
}

func (w *world) fault(format string, args ...any) {
	w.trouble = append(w.trouble, fmt.Sprintf(format, args...))
}

// define stores a definition as engine/schedules does.
func (w *world) define(s spec.Schedule) error {
	w.sequence++
	p := Place{Revision: w.sequence, Stored: w.now, Created: w.now, Since: w.now}
	if was := w.def; was != nil {
		p.Created = was.Created
		if was.SameCalendar(s) && (!was.IsPaused() || s.IsPaused()) {
			p.Since = was.Since
		}
	}
	d, err := Compile(s, p)
	if err != nil {
		return err
	}
	w.def, w.history, w.heard = d, append(w.history, d), w.heard+1
	return nil
}

func (w *world) remove() {
	w.sequence++
	w.def, w.heard = nil, w.heard+1
}

// load reads the cursor. It passes through JSON, as it does in life.
func (w *world) load() (c Cursor, revision uint64) {
	if w.cursor != nil {
		if err := json.Unmarshal(w.cursor, &c); err != nil {
			w.fault("the cursor cannot be read: %v", err)
		}
	}
	return c, w.revision
}

// save stores a cursor unless it has another revision by now.
func (w *world) save(c Cursor, expected uint64) (uint64, bool) {
	if w.revision != expected {
		return 0, false
	}
	data, err := json.Marshal(c)
	if err != nil {
		w.fault("the cursor cannot be stored: %v", err)
	}
	w.sequence++
	w.cursor, w.revision, w.seen[c.Since] = data, w.sequence, true
	return w.revision, true
}

// note notes what a cursor has decided that was stored. No tick is decided twice, but
// by who did not know that there is another calendar, and then by who does.
func (w *world) note(acts []Act, since time.Time) {
	for _, a := range acts {
		if a.Do != Make && a.Do != Wait && a.Do != Decline {
			continue
		}
		if was, twice := w.decided[a.At]; twice && was.Equal(since) {
			w.fault("the tick of %v is decided twice: at last to %s %s", a.At, a.Do, a.ID)
		}
		w.decided[a.At] = since
	}
}

// forget deletes the cursor unless it has another revision by now.
func (w *world) forget(expected uint64) {
	if w.revision == expected {
		w.cursor, w.revision = nil, 0
	}
}

// create stores a job unless its ID is there.
func (w *world) create(j machine.Job) {
	if w.jobs[j.ID] != nil {
		return
	}
	if err := j.Validate(); err != nil {
		w.fault("%v", err)
	}
	w.jobs[j.ID] = &record{}
	w.ids = append(w.ids, j.ID)
	w.store(w.jobs[j.ID], j)
}

// store stores what became of a job, and counts who goes on.
func (w *world) store(s *record, j machine.Job) {
	was := s.revision > 0 && goesOn(s.job)
	s.job = j
	s.revision++
	if is := goesOn(j); is && !was {
		w.going++
	} else if was && !is {
		w.going--
	}
	w.most = max(w.most, w.going)
	if j.State.Final() || j.Wait == machine.WaitTurn {
		w.heard++
	}
}

func goesOn(j machine.Job) bool {
	return j.Tick.Turn && !j.State.Final() && j.Wait != machine.WaitTurn
}

// apply applies an event to a job at a revision; 0 means as it is.
func (w *world) apply(id string, revision int, ev machine.Event) bool {
	s := w.jobs[id]
	if s == nil || revision != 0 && s.revision != revision {
		return false
	}
	j, err := s.job.Apply(ev)
	if err != nil {
		return false
	}
	w.store(s, j)
	return true
}

// wants returns the jobs that wait for a turn.
func (w *world) wants() (list []Want) {
	for _, id := range w.ids {
		if j := w.jobs[id].job; j.Wait == machine.WaitTurn {
			list = append(list, WantOf(j))
		}
	}
	return list
}

// ready reports whether a worker may claim a job.
func (w *world) ready(j machine.Job) bool {
	return j.State == machine.Pending || j.State == machine.Scheduled && j.Wait == machine.WaitDelay && !j.Due.After(w.now)
}

// claim lets a job run for a while, unless its schedule declines it by now.
func (w *world) claim(id string, takes time.Duration, fails bool) {
	s := w.jobs[id]
	if s.job.Unchecked() && (w.def == nil || w.def.Revision != s.job.Tick.Revision) {
		if code, why := w.def.Declines(s.job); code != "" {
			w.apply(id, 0, machine.Declined{At: w.now, Code: code, Why: why})
			return
		}
	}
	if s.job.Unchecked() && (w.def == nil || w.def.IsPaused()) {
		w.fault("%s begins, and its schedule is paused or was deleted", id)
	}
	s.ends, s.fails = w.now.Add(takes), fails
	w.apply(id, 0, machine.Claimed{Claimant: machine.Claimant{
		Lease: machine.Lease{Node: "a", Incarnation: 1, Token: fmt.Sprint("t", s.job.Attempt+1)}, Fence: uint64(s.revision), At: w.now, MaxAttempts: 1,
	}})
}

// end ends a job that runs.
func (w *world) end(id string) {
	s := w.jobs[id]
	hold := machine.Hold{Token: s.job.Lease.Token, At: w.now}
	switch {
	case s.job.Cancel != nil:
		w.apply(id, 0, machine.Returned{Hold: hold, Reason: "cancelled"})
	case s.fails:
		w.apply(id, 0, machine.Erred{Hold: hold, Error: machine.Error{Message: "disk full"}, Final: true})
	default:
		w.apply(id, 0, machine.Done{Hold: hold})
	}
}

// trigger creates a job by hand, as engine/schedules does.
func (w *world) trigger() {
	if w.def == nil {
		return
	}
	a := Act{Do: Make, By: machine.ByHand, At: machine.Millisecond(w.now)}
	if w.def.Overlap.Bounded() {
		a.Do = Wait
	}
	a.ID = w.def.ID(a.At, a.By)
	w.create(w.def.Job(a, w.now))
}

// backfill creates jobs for the ticks of the past, as engine/schedules does.
func (w *world) backfill(from, to time.Time) {
	if w.def == nil {
		return
	}
	for at := w.def.Next(from.Add(-1)); !at.IsZero() && at.Before(to); at = w.def.Next(at) {
		a := Act{Do: Make, By: machine.ByBackfill, At: at, ID: w.def.ID(at, machine.ByBackfill)}
		if w.def.Overlap.Bounded() {
			a.Do = Wait
		}
		w.create(w.def.Job(a, w.now))
	}
}
