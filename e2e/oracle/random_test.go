package oracle_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// A random run of a system that keeps its promises is right; with one wrong
// added to it, it is not, and the judge says which promise was broken.
func TestRandom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		if said := w.run().Check(); len(said) > 0 {
			t.Fatalf("nothing was wrong, and the judge says %v", said)
		}
		wrong := wrongs[rapid.IntRange(0, len(wrongs)-1).Draw(t, "wrong")]
		subject := rapid.SampledFrom(w.jobs).Draw(t, "job")
		wrong.do(w, subject)
		said := w.run().Check()
		if !slices.ContainsFunc(said, func(v oracle.Violation) bool {
			return slices.Contains(wrong.says, v.Invariant) && (v.Job == "" || v.Job == subject.record.ID)
		}) {
			t.Fatalf("%s is not among what the judge says: %v\n%v", wrong.says, said, w.run().Timeline(subject.record.ID))
		}
	})
}

// wrongs are what can go wrong, and what is then said, one of them at least.
var wrongs = []struct {
	name string
	do   func(w *world, j *told)
	says []string
}{
	{"doubled start", func(w *world, j *told) {
		e := j.starts[0]
		e.At, e.Process, e.Nonce = e.At+1, "w2#1", "other"
		w.add(e)
	}, []string{"I3"}},
	{"stale completion", func(_ *world, j *told) { j.record.Result = []byte(`{"nonce":"stale"}`) }, []string{"I3"}},
	{"overlap", func(w *world, j *told) {
		w.add(ledger.Entry{At: j.starts[0].At + int64(50*time.Millisecond), What: ledger.Start, Process: "w2#1", Job: j.record.ID, Attempt: 90, Fence: 1e6})
	}, []string{"I3"}},
	{"lost job", func(_ *world, j *told) { j.lost = true }, []string{"I4"}},
	{"stuck job", func(_ *world, j *told) { j.record.State, j.record.Result = "pending", nil }, []string{"I4"}},
	{"start after a cancel", func(w *world, j *told) {
		w.call(ledger.Entry{Verb: ledger.Cancel, Job: j.record.ID, At: j.starts[0].At - int64(5*time.Second)})
	}, []string{"I5"}},
	{"start after a pause", func(w *world, j *told) {
		w.call(ledger.Entry{Verb: ledger.Pause, Queue: "work", At: j.starts[0].At - int64(5*time.Second)})
	}, []string{"I5"}},
	{"start beyond the limit", func(w *world, j *told) {
		w.call(ledger.Entry{Verb: ledger.Limit, Queue: "work", Count: 1, At: j.starts[0].At - int64(5*time.Second)})
		for i := range 2 {
			w.add(ledger.Entry{At: j.starts[0].At + int64(i), What: ledger.Start, Process: "w2#1", Job: j.record.ID, Attempt: 90 + i, Fence: 1e6})
		}
	}, []string{"I5", "I3"}},
	{"start on a drained node", func(w *world, j *told) {
		w.call(ledger.Entry{Verb: ledger.Drain, Node: j.starts[0].Node, At: j.starts[0].At - int64(5*time.Second)})
	}, []string{"I6"}},
	{"placed on a dead node", func(w *world, j *told) {
		w.add(ledger.Entry{At: w.at(0), What: ledger.Born, Process: "w9#1", Node: "w9", Role: "worker"})
		w.add(ledger.Entry{At: w.at(1), What: ledger.Fault, Verb: ledger.Kill9, Process: "w9#1", Node: "w9"})
		j.record.Attempts[0].Node, j.record.Attempts[0].Started = "w9", time.Unix(0, w.at(40))
	}, []string{"I6"}},
	{"finished, and run again", func(w *world, j *told) {
		last := j.starts[len(j.starts)-1]
		w.add(ledger.Entry{At: w.at(95), What: ledger.Start, Process: last.Process, Node: last.Node, Job: j.record.ID, Attempt: 90, Fence: 1e6})
	}, []string{"I8"}},
	{"a process that gave up", func(w *world, _ *told) {
		w.add(ledger.Entry{At: w.at(101), What: ledger.Gone, Process: "w1#1"})
	}, []string{"I9"}},
	{"a process that is not ready again", func(w *world, _ *told) {
		w.entries = slices.DeleteFunc(w.entries, func(e ledger.Entry) bool {
			return e.Process == "w1#1" && e.What == ledger.Ready && e.At > w.at(100)
		})
	}, []string{"I9"}},
	{"two owners", func(w *world, _ *told) {
		w.add(ledger.Entry{At: w.at(50), What: ledger.Owner, Node: "s2", Epoch: 5, Revision: 20})
	}, []string{"owner"}},
	{"a record from the future", func(w *world, j *told) {
		at := j.starts[0].At + 1
		w.add(ledger.Entry{At: at, Call: at, What: ledger.Read, Job: j.record.ID, State: "succeeded", Attempt: j.starts[0].Attempt, Revision: 5})
	}, []string{"I3", "linearizable"}},
}

// world is a run that is made up.
type world struct {
	t       *rapid.T
	entries []ledger.Entry
	jobs    []*told
	rev     uint64
	// away is when w3 is disturbed, in seconds, and how.
	away, back float64
	verb       string
}

// told is what is made up of a job.
type told struct {
	record oracle.Job
	starts []ledger.Entry
	ends   []ledger.Entry
	lost   bool // from the list
}

// draw makes up a run: two workers that nothing is done to before the servers are
// away for a moment, and one that is killed, frozen or cut.
func draw(t *rapid.T) *world {
	w := &world{t: t, rev: 100}
	w.away = float64(rapid.IntRange(15, 25).Draw(t, "away"))
	w.back = w.away + float64(rapid.IntRange(8, 20).Draw(t, "for"))
	w.verb = rapid.SampledFrom([]string{ledger.Kill9, ledger.Stop, ledger.Cut, ledger.Drop}).Draw(t, "verb")
	w.add(ledger.Entry{At: w.at(0), What: ledger.Born, Process: "n1", Role: "server"})
	w.add(ledger.Entry{At: w.at(0.5), What: ledger.Owner, Node: "s1", Epoch: 5, Revision: 5})
	for _, name := range []string{"w1", "w2", "w3", "s1"} {
		born := ledger.Entry{At: w.at(0), What: ledger.Born, Process: name + "#1", Node: name}
		if name != "s1" {
			born.Queue, born.Count = "work", 50
		}
		w.add(born)
		if name != "w3" {
			w.says(name, 1, ledger.Ready)
			w.says(name, 100.1, ledger.Unready)
			w.says(name, 103, ledger.Ready)
		}
	}
	w.disturb()
	w.add(ledger.Entry{At: w.at(100), What: ledger.Fault, Verb: ledger.Kill9, Process: "n1", Role: "server"})
	w.add(ledger.Entry{At: w.at(102), What: ledger.Born, Process: "n1", Role: "server"})
	for n := range rapid.IntRange(1, 5).Draw(t, "jobs") {
		w.jobs = append(w.jobs, w.work(fmt.Sprint("work.", n)))
	}
	w.add(ledger.Entry{At: w.at(140), What: ledger.Owner, Node: "s1", Epoch: 5, Revision: 90})
	return w
}

// disturb does to w3 what is done to it.
func (w *world) disturb() {
	e := ledger.Entry{At: w.at(w.away), What: ledger.Fault, Verb: w.verb, Process: "w3#1", Node: "w3"}
	w.add(e)
	if e.At = w.at(w.back); w.verb == ledger.Kill9 {
		e.What, e.Process, e.Queue, e.Count = ledger.Born, "w3#2", "work", 50
	} else {
		e.What = ledger.Heal
	}
	w.add(e)
}

// work makes up the life of a job. It ends well, by a run on a worker that
// nothing is done to.
func (w *world) work(id string) *told {
	j := &told{record: oracle.Job{ID: id}}
	now := float64(rapid.IntRange(6, 14).Draw(w.t, "submit"))
	w.submit(id, now)
	w.read(j, now+0.02, "pending")
	for n := 1; ; n++ {
		now += float64(rapid.IntRange(50, 900).Draw(w.t, "wait")) / 1000
		took := float64(rapid.IntRange(200, 3000).Draw(w.t, "took")) / 1000
		how := rapid.SampledFrom([]string{ledger.Succeeded, ledger.Failed, ledger.Snoozed, "lost"}).Draw(w.t, "how")
		switch {
		case n > 4 || how == ledger.Succeeded:
			now = w.attempt(j, "w1", now, took, ledger.Succeeded)
			w.read(j, now+0.01, "succeeded")
			return j
		case how == "lost" && now < w.away:
			now = w.loseAttempt(j, now)
			w.read(j, now, "pending")
		case how == "lost":
		default:
			now = w.attempt(j, rapid.SampledFrom([]string{"w1", "w2"}).Draw(w.t, "on"), now, took, how)
			w.read(j, now+0.01, map[string]string{ledger.Failed: "retrying", ledger.Snoozed: "scheduled"}[how])
		}
	}
}

// submit makes up one answer, or one that is lost and one that is not.
func (w *world) submit(id string, at float64) {
	if rapid.Bool().Draw(w.t, "unknown") {
		w.call(ledger.Entry{Verb: ledger.Submit, Job: id, At: w.at(at), Outcome: ledger.Unknown})
		w.call(ledger.Entry{Verb: ledger.Submit, Job: id, At: w.at(at + 0.01), Outcome: ledger.Attached})
		return
	}
	w.call(ledger.Entry{Verb: ledger.Submit, Job: id, At: w.at(at), Outcome: ledger.Created})
}

// attempt makes up an attempt that ends by itself, and returns when it is over.
func (w *world) attempt(j *told, node string, at, took float64, how string) float64 {
	outcome := map[string]string{ledger.Failed: "failed", ledger.Snoozed: "returned", ledger.Succeeded: "succeeded"}[how]
	w.start(j, node, at)
	end := j.starts[len(j.starts)-1]
	end.At, end.What, end.Outcome = w.at(at+took), ledger.End, how
	w.add(end)
	j.ends = append(j.ends, end)
	w.ended(j, at+took+0.001, outcome)
	if how == ledger.Succeeded {
		j.record.State, j.record.Result = "succeeded", fmt.Appendf(nil, `{"nonce":%q}`, end.Nonce)
		j.record.Finished = time.Unix(0, w.at(at+took+0.001))
	}
	return at + took + 0.01
}

// loseAttempt makes up one that w3 runs when it is disturbed, and returns when
// it is over. Its handler may end when w3 is back.
func (w *world) loseAttempt(j *told, at float64) float64 {
	w.start(j, "w3", at)
	end := j.starts[len(j.starts)-1]
	over := w.away + float64(rapid.IntRange(6000, 12000).Draw(w.t, "lost"))/1000
	if end.At, end.What, end.Outcome = w.at(w.back+0.1), ledger.End, ledger.Succeeded; w.verb != ledger.Kill9 {
		if w.verb != ledger.Stop { // which tells nobody in time
			end.Cause = ledger.LeaseLost
		}
		w.add(end)
	}
	w.ended(j, over, "lost")
	return over + 0.1
}

func (w *world) start(j *told, node string, at float64) {
	j.record.Attempt++
	w.rev++
	e := ledger.Entry{
		At: w.at(at), What: ledger.Start, Process: node + "#1", Node: node, Job: j.record.ID, Attempt: j.record.Attempt,
		Fence: w.rev, Nonce: fmt.Sprint(j.record.ID, "/", j.record.Attempt),
	}
	w.add(e)
	j.starts = append(j.starts, e)
	j.record.Attempts = append(j.record.Attempts, oracle.Attempt{Number: e.Attempt, Node: node, Started: time.Unix(0, w.at(at-0.01))})
	w.rev++
	w.read(j, at+0.1, "running")
}

func (w *world) ended(j *told, at float64, outcome string) {
	last := &j.record.Attempts[len(j.record.Attempts)-1]
	last.Ended, last.Outcome = time.Unix(0, w.at(at)), outcome
	w.rev++
	j.record.Revision = w.rev
}

// read makes up what somebody may have seen.
func (w *world) read(j *told, at float64, state string) {
	if rapid.Bool().Draw(w.t, "read") {
		w.add(ledger.Entry{
			At: w.at(at) + 1, Call: w.at(at), What: ledger.Read, Job: j.record.ID,
			State: state, Attempt: j.record.Attempt, Revision: w.rev,
		})
	}
}

func (w *world) at(seconds float64) int64 {
	return began.Add(time.Duration(seconds * float64(time.Second))).UnixNano()
}

func (w *world) add(e ledger.Entry) { w.entries = append(w.entries, e) }

func (w *world) says(node string, at float64, what ledger.What) {
	w.add(ledger.Entry{At: w.at(at), What: what, Process: node + "#1", Node: node})
}

// call adds a call; one that says nothing else was answered.
func (w *world) call(e ledger.Entry) {
	e.What, e.Call = ledger.Call, e.At-int64(5*time.Millisecond)
	if e.Outcome == "" {
		e.Outcome = ledger.OK
	}
	w.add(e)
}

func (w *world) run() oracle.Run {
	r := oracle.Run{Ledger: w.entries}
	for _, j := range w.jobs {
		if !j.lost {
			r.Jobs = append(r.Jobs, j.record)
		}
	}
	return r
}
