package oracle

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// never is later than everything.
const never = int64(math.MaxInt64)

// grain is what the clocks of two processes may differ by.
const grain = int64(time.Millisecond)

// Drift is by how much something may begin before its time: the owner asks for the time of
// the server every minute, and a clock that is put right meanwhile, as the system does, is
// slewed by up to 0.5 ms a second.
const Drift = 30 * time.Millisecond

// history is a run, sorted for the checks.
type history struct {
	Run
	entries   []*ledger.Entry // by time
	begin     int64           // of the ledger
	end       int64
	jobs      []*life // by ID
	lives     map[string]*life
	processes map[string]*process
	skewed    bool            // a server had a wrong clock
	servers   map[string]bool // their names
	system    []span          // when the servers were disturbed
	away      []span          // when there was no server at all
	headless  []span          // when there were no servers, or no owner that could work
	owners    []*ledger.Entry
	queues    map[string][]*ledger.Entry // calls about a queue, by time
	nodes     map[string][]*ledger.Entry // calls about a node, by time
	schedules map[string]*schedule
}

// life is all that is known of one job.
type life struct {
	id     string
	record *Job   // nil if it is not in the list
	runs   []*run // by attempt, then by time
	calls  []*ledger.Entry
	reads  []*ledger.Entry
	parent *life // that it is a part of, or nil
	parts  []*life
	// cancellable is set if its schedule may have it cancelled.
	cancellable bool
}

// run is one run of a handler.
type run struct {
	start   *ledger.Entry
	end     *ledger.Entry // nil if it never came to that
	process *process
}

// over is when the handler was certainly over: it ended, or its process did. A
// program that a worker has started may write its end even later.
func (r *run) over() int64 {
	if r.end != nil {
		return min(r.end.At, r.process.died())
	}
	return r.process.died()
}

// won reports whether the handler succeeded while nobody wanted it to end.
func (r *run) won() bool {
	return r.end != nil && r.end.Outcome == ledger.Succeeded && r.end.Cause == ""
}

// program reports whether the handler is a program of its own, which writes its
// end before it ends, and does not know why it should.
func (r *run) program() bool { return r.process.role == ledger.Exec }

// newHistory sorts a run.
func newHistory(r Run) *history {
	h := &history{
		Run:   r.withDefaults(),
		lives: map[string]*life{}, processes: map[string]*process{},
		queues: map[string][]*ledger.Entry{}, nodes: map[string][]*ledger.Entry{},
		schedules: map[string]*schedule{},
	}
	h.entries = make([]*ledger.Entry, len(r.Ledger))
	for i := range r.Ledger {
		h.entries[i] = &r.Ledger[i]
	}
	if over := slices.IndexFunc(h.entries, func(e *ledger.Entry) bool { return e.What == ledger.Over }); over >= 0 {
		h.entries = h.entries[:over]
	}
	slices.SortStableFunc(h.entries, func(a, b *ledger.Entry) int { return cmp.Compare(a.At, b.At) })
	if n := len(h.entries); n > 0 {
		h.begin, h.end = h.entries[0].At, h.entries[n-1].At
	}
	h.readProcesses()
	h.readClocks()
	h.readOwners()
	h.readJobs()
	return h
}

// readClocks finds out whether a server had a wrong clock. Times in records are the
// servers', and say nothing then.
func (h *history) readClocks() {
	h.skewed = slices.ContainsFunc(h.entries, func(e *ledger.Entry) bool {
		p := h.processes[e.Process]
		return e.What == ledger.Fault && e.Verb == ledger.Clock && p != nil && p.role == ledger.Server
	})
}

// undated returns records without their times.
func undated(jobs []Job) []Job {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		j := &jobs[i]
		j.Finished, j.Attempts = time.Time{}, slices.Clone(j.Attempts)
		for n := range j.Attempts {
			j.Attempts[n].Started, j.Attempts[n].Ended = time.Time{}, time.Time{}
		}
	}
	return jobs
}

// readJobs sorts by job what handlers and clients wrote, and what the list has.
func (h *history) readJobs() {
	open := map[string]*run{}
	for _, e := range h.entries {
		switch e.What {
		case ledger.Start:
			r := &run{start: e, process: h.processAt(e)}
			open[runKey(e)] = r
			if e.Parent != "" {
				h.life(e.Parent) // of which its submitter may not have lived to tell
			}
			l := h.life(e.Job)
			l.runs = append(l.runs, r)
		case ledger.End:
			if r := open[runKey(e)]; r != nil && r.end == nil {
				r.end = e
				if e.Cause == ledger.LeaseLost {
					r.process.losses = append(r.process.losses, e.At)
				}
			}
		case ledger.Read:
			l := h.life(e.Job)
			l.reads = append(l.reads, e)
		case ledger.Call:
			h.readCall(e)
		default: // not about a job
		}
	}
	if h.skewed {
		h.Jobs = undated(h.Jobs)
	}
	for _, j := range h.Jobs {
		if h.schedules[j.Schedule] != nil {
			h.life(j.ID) // which nobody has submitted
		}
	}
	for i := range h.Jobs {
		j := &h.Jobs[i]
		if l := h.lives[j.Parent]; l != nil && j.Parent != "" {
			h.life(j.ID) // which may never have started
		}
		if l := h.lives[j.ID]; l != nil { // what the ledger does not know is not ours
			l.record = j
		}
	}
	h.readFamilies()
	h.readSchedules()
	h.jobs = make([]*life, 0, len(h.lives))
	for _, l := range h.lives {
		slices.SortStableFunc(l.runs, func(a, b *run) int { return cmp.Compare(a.start.Attempt, b.start.Attempt) })
		h.jobs = append(h.jobs, l)
	}
	slices.SortFunc(h.jobs, func(a, b *life) int { return strings.Compare(a.id, b.id) })
}

// runKey names a run of a handler. Those that know no nonce are told apart by
// what they ran.
func runKey(e *ledger.Entry) string {
	if e.Nonce != "" {
		return e.Nonce
	}
	return strings.Join([]string{e.Job, e.Process, strconv.Itoa(e.Attempt)}, " ")
}

// readCall sorts a call by what it is about.
func (h *history) readCall(e *ledger.Entry) {
	switch {
	case e.Job != "":
		l := h.life(e.Job)
		l.calls = append(l.calls, e)
	case e.Schedule != "":
		s := h.schedule(e.Schedule)
		s.calls = append(s.calls, e)
	case e.Queue != "":
		h.queues[e.Queue] = append(h.queues[e.Queue], e)
	case e.Node != "":
		h.nodes[e.Node] = append(h.nodes[e.Node], e)
	}
}

// life returns the life of a job, which begins when somebody first speaks of it.
func (h *history) life(id string) *life {
	l := h.lives[id]
	if l == nil {
		l = &life{id: id}
		h.lives[id] = l
	}
	return l
}

// queue is the queue of a job: the part of its ID before the dot.
func (l *life) queue() string {
	queue, _, _ := strings.Cut(l.id, ".")
	return queue
}

// redriven reports whether somebody may have asked for another run, so that the
// job may go on at some time between from and to.
func (l *life) redriven(from, to int64) bool {
	if l.parent != nil && l.parent.redriven(from, to) {
		return true
	}
	return slices.ContainsFunc(l.calls, func(e *ledger.Entry) bool {
		return e.Verb == ledger.Retry && e.Outcome != ledger.Refused && begun(e) <= to && done(e) >= from
	})
}

// begun is when a call was made.
func begun(e *ledger.Entry) int64 {
	if e.Call == 0 {
		return e.At
	}
	return e.Call
}

// done is when a call had taken effect at the latest: never, if it is not known
// whether it did.
func done(e *ledger.Entry) int64 {
	if e.Outcome == ledger.Unknown {
		return never
	}
	return e.At
}

// later is t and d, without going beyond never.
func later(t int64, d time.Duration) int64 {
	if t > never-int64(d) {
		return never
	}
	return t + int64(d)
}

// lag is how much later than promised something may be seen that takes one step
// of a process.
func (h *history) lag() time.Duration { return h.Slack / 10 }

// launch is how much later than its attempt a handler may be seen to start: one
// that is a program has to be loaded first, and another one to write that down.
func (h *history) launch(p *process) time.Duration {
	if p.role == ledger.Exec {
		return h.Slack / 2
	}
	return h.lag()
}

// pick returns the entries that there are, for a violation.
func pick(entries ...*ledger.Entry) []ledger.Entry {
	var picked []ledger.Entry
	for _, e := range entries {
		if e != nil {
			picked = append(picked, *e)
		}
	}
	return picked
}
