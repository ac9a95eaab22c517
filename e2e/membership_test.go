package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// Workers leave, crash and come back while jobs come in.
func TestMembership(t *testing.T) {
	tell(
		t,
		scenario{"clean-stop", quick, short, leaving{}.clean},
		scenario{"clean-stop-of-scripts", short, full, leaving{scripts: true}.clean},
		scenario{"clean-stop-reports-under-way", short, full, leaving{slow: true}.clean},
		scenario{"clean-stop-leader-of-nodes-killed", never, short, leaving{leader: "KV_mr_default_nodes"}.clean},
		scenario{"clean-stop-leader-of-jobs-killed", never, full, leaving{leader: "KV_mr_default_jobs"}.clean},
		scenario{"clean-stop-leader-of-work-killed", never, full, leaving{leader: "mr_default_work"}.clean},
		scenario{"crash", quick, short, leaving{}.crash},
		scenario{"crash-of-scripts", short, full, leaving{scripts: true}.crash},
		scenario{"crash-while-draining", short, full, leaving{draining: true}.crash},
		scenario{"crash-leader-of-work-killed", never, short, leaving{leader: "mr_default_work"}.crash},
		scenario{"crash-leader-of-jobs-killed", never, full, leaving{leader: "KV_mr_default_jobs"}.crash},
		scenario{"crash-leader-of-nodes-killed", never, full, leaving{leader: "KV_mr_default_nodes"}.crash},
		scenario{"same-ID-at-once", short, full, comesBack},
		scenario{"same-ID-twice", short, full, twice},
		scenario{"drained-and-killed", short, full, drainedAndKilled},
	)
}

// leaving is how a worker of two goes: with a long job, while short ones come in.
type leaving struct {
	scripts  bool   // the workers run scripts
	slow     bool   // its link is slow, so that reports of jobs are under way when it goes
	draining bool   // it has been asked to end, before it crashes
	leader   string // the server that leads this stream is killed right after it has gone
}

// clean is the end that a worker is asked for. It takes nothing from then on and
// ends when its long job has; the other one runs the rest.
func (l leaving) clean(t *testing.T, servers int) {
	m := newMembership(t, servers)
	m.scripts = l.scripts
	scene := m.scene()
	if l.slow {
		scene.old.Delay(200 * time.Millisecond)
	}
	m.After(scale(time.Second/2, time.Second, 2*time.Second))
	w := m.watch(scene.old)
	asked := m.Ledger.Now()
	scene.old.Term()
	m.killLeader(l.leader)
	scene.old.Await()
	w.await()
	m.figure("asked to end until listed as offline", asked, w.first("offline"))
	scene.old.HealLinks()
	jobs := m.end(scene)

	gone := m.gone(scene.old.Process())
	if gone.Note != ledger.Clean {
		t.Errorf("%s ended with %s", gone.Process, gone.Note)
	}
	if draining := w.first("draining"); draining > 0 { // without the leader of nodes nobody can be told
		m.figure("asked to end until listed as draining", asked, draining)
		if !l.scripts { // which are seen to start later than they do: the oracle knows by how much
			m.checkQuiet(scene.old.Process(), draining)
		}
	}
	if l.leader == "" {
		w.check("draining", "offline")
		m.checkOnce()
		m.checkEnded(jobs[longJob], gone)
	}
	m.Judge()
}

// checkEnded checks that a job has ended in its first attempt, before the process
// went that ran it.
func (m *membership) checkEnded(j oracle.Job, gone ledger.Entry) {
	m.t.Helper()
	ended := m.last(func(e ledger.Entry) bool { return e.What == ledger.End && e.Job == j.ID })
	if len(j.Attempts) != 1 || ended.Process != gone.Process || ended.At > gone.At {
		m.t.Errorf("%s ended on %s at %v, in attempts %+v, want one on %s, which went at %v",
			j.ID, ended.Process, ended.Time(), j.Attempts, gone.Process, gone.Time())
	}
}

// crash is the end of a worker that is killed. The other one runs its jobs again.
func (l leaving) crash(t *testing.T, servers int) {
	m := newMembership(t, servers)
	m.scripts = l.scripts
	scene := m.scene()
	m.After(scale(time.Second/2, time.Second, 2*time.Second))
	w := m.watch(scene.old)
	if l.draining {
		scene.old.Term()
		m.Await("it is listed as draining", func() bool { return w.first("draining") > 0 })
	}
	killed := m.Ledger.Now()
	scene.old.Kill()
	m.killLeader(l.leader)
	second := m.AwaitStart(longJob, 2)
	w.await()
	m.figure("killed until listed as offline", killed, w.first("offline"))
	m.figure("killed until attempt 2 starts", killed, second.At)
	jobs := m.end(scene)

	if second.Process != scene.other.Process() {
		t.Errorf("attempt 2 is on %s, want %s", second.Process, scene.other.Process())
	}
	if a := jobs[longJob].Attempts; len(a) < 2 || a[0].Outcome != "lost" {
		t.Errorf("the attempts of the long job are %+v, want a lost one first", a)
	}
	if l.leader == "" && !l.draining {
		w.check("offline")
	}
	m.Judge()
}

// The worker is killed and started again at once under the same ID. It waits for
// its former lease, takes jobs then, and none is lost in between.
func comesBack(t *testing.T, servers int) {
	m := newMembership(t, servers)
	scene := m.scene()
	killed := m.Ledger.Now()
	scene.old.Kill()
	scene.old.Start()
	m.Await("it is ready again", scene.old.Ready)
	m.figure("killed until ready again", killed, m.Ledger.Now())
	second := m.AwaitStart(longJob, 2)
	m.figure("killed until attempt 2 starts", killed, second.At)
	m.takes(scene, scene.old)
	m.end(scene)
	m.Judge()
}

// Somebody starts a worker under an ID that another one has. It is refused, also
// while that one drains, and let in as soon as that one has ended.
func twice(t *testing.T, servers int) {
	m := newMembership(t, servers)
	scene := m.scene()
	refused := func(name string) *cluster.Node {
		n := m.hire(name, cluster.NodeOptions{ID: scene.old.ID, Early: true})
		n.Await()
		if log := n.Log(); !strings.Contains(log, "the ID belongs to another process") {
			t.Errorf("%s ended, and does not say why:\n%s", name, log)
		}
		return n
	}
	refused("copy1")
	w := m.watch(scene.old)
	scene.old.Term()
	m.Await("it is listed as draining", func() bool { return w.first("draining") > 0 })
	heir := refused("copy2")
	scene.old.Await()
	ended := m.Ledger.Now()
	heir.Start()
	m.Await("the next one is ready", heir.Ready)
	m.figure("ended until ready under the same ID", ended, m.Ledger.Now())
	m.takes(scene, heir)
	jobs := m.end(scene)
	m.checkEnded(jobs[longJob], m.gone(scene.old.Process()))
	m.checkOnce()
	m.Judge()
}

// A worker is drained by a user, and then killed. Under the same ID it takes
// nothing after that either, until the user says so.
func drainedAndKilled(t *testing.T, servers int) {
	m := newMembership(t, servers)
	scene := m.scene()
	if err := m.Drain(scene.old.ID); err != nil {
		t.Fatal(err)
	}
	drained := m.Ledger.Now()
	killed := scene.old.Process()
	scene.old.Kill()
	scene.old.Start()
	m.Await("it is ready again", scene.old.Ready)
	if second := m.AwaitStart(longJob, 2); second.Process != scene.other.Process() {
		t.Errorf("attempt 2 is on %s, want %s", second.Process, scene.other.Process())
	}
	m.load(scene, "d", 2*slots)
	m.AwaitEnded(scene.jobs)
	m.checkQuiet(killed, drained)
	m.checkQuiet(scene.old.Process(), drained)
	if err := m.Undrain(scene.old.ID); err != nil {
		t.Fatal(err)
	}
	m.takes(scene, scene.old)
	m.end(scene)
	m.Judge()
}

// takes has so many jobs submitted that one worker cannot run them all at once,
// and waits until a node has started one of them.
func (m *membership) takes(s *scene, n *cluster.Node) {
	m.t.Helper()
	m.load(s, "e", 3*slots)
	m.AwaitEntry(n.Process()+" takes a job", func(e ledger.Entry) bool {
		return e.What == ledger.Start && e.Process == n.Process()
	})
}

// load submits jobs of half a second, all at once.
func (m *membership) load(s *scene, prefix string, count int) {
	m.t.Helper()
	s.jobs += count
	m.Submit(cluster.Load{Prefix: prefix, Count: count, Work: actor.Work{For: 500}}).Await()
}

// checkOnce checks that no handler was started twice for the same job.
func (m *membership) checkOnce() {
	m.t.Helper()
	starts := map[string][]string{}
	for _, e := range m.Entries() {
		if e.What == ledger.Start {
			starts[e.Job] = append(starts[e.Job], e.Process)
		}
	}
	for job, on := range starts {
		if len(on) > 1 {
			m.t.Errorf("job %s was started on %v, and nobody died", job, on)
		}
	}
}

// checkQuiet checks that nothing has started in a life of a process since then.
func (m *membership) checkQuiet(process string, since int64) {
	m.t.Helper()
	for _, e := range m.Entries() {
		if e.What == ledger.Start && e.Process == process && e.At > since {
			m.t.Errorf("job %s was started on %s %v after it was told that nothing does", e.Job, process, time.Duration(e.At-since))
		}
	}
}

// gone returns the end of a life of a process.
func (m *membership) gone(process string) ledger.Entry {
	m.t.Helper()
	return m.last(func(e ledger.Entry) bool { return e.What == ledger.Gone && e.Process == process })
}

// last returns the last entry that matches.
func (m *membership) last(matches func(ledger.Entry) bool) ledger.Entry {
	m.t.Helper()
	entries := slices.DeleteFunc(m.Entries(), func(e ledger.Entry) bool { return !matches(e) })
	if len(entries) == 0 {
		m.t.Fatal("the ledger has no such entry")
	}
	return entries[len(entries)-1]
}
