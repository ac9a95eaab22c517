package e2e_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/oracle"
)

// membership is a cluster whose workers come and go.
type membership struct {
	*cluster.Cluster
	t       *testing.T
	serving *cluster.Node
	scripts bool // workers run scripts, not handlers in Go
}

// newMembership starts a cluster with a node that serves.
func newMembership(t *testing.T, servers int) *membership {
	t.Helper()
	m := &membership{Cluster: begin(t, cluster.Options{Servers: servers}), t: t}
	m.serving = m.Serve("s1", cluster.NodeOptions{})
	return m
}

// slots is how many jobs a worker runs at once.
const slots = 10

// hire starts a worker.
func (m *membership) hire(name string, o cluster.NodeOptions) *cluster.Node {
	m.t.Helper()
	o.Slots = slots
	if m.scripts {
		return m.Exec(name, o)
	}
	return m.Worker(name, o)
}

// longJob is the job that is running when something happens.
const longJob = "work.b0"

// scene is two workers at work.
type scene struct {
	old, other *cluster.Node // old runs the long job
	ticks      *cluster.Node // submits short ones
	jobs       int           // how many there will be
}

// scene has short jobs submitted all the time, and waits until a worker runs the
// long one.
func (m *membership) scene() *scene {
	m.t.Helper()
	s := &scene{old: m.hire("w1", cluster.NodeOptions{}), other: m.hire("w2", cluster.NodeOptions{})}
	ticks := cluster.Load{Prefix: "a", Count: scale(24, 40, 40), Rate: scale(8.0, 4, 1), Work: actor.Work{For: 100}}
	s.ticks = m.Submit(ticks)
	m.After(scale(time.Second/2, 2*time.Second, 8*time.Second))
	long := scale(8*time.Second, 8*time.Second, 20*time.Second)
	m.Submit(cluster.Load{Prefix: "b", Count: 1, Work: actor.Work{For: int(long.Milliseconds())}}).Await()
	if e := m.AwaitStart(longJob, 1); e.Process == s.other.Process() {
		s.old, s.other = s.other, s.old
	}
	s.jobs = ticks.Count + 1
	return s
}

// end waits until everything has ended, and returns the jobs. All have succeeded.
func (m *membership) end(s *scene) map[string]oracle.Job {
	m.t.Helper()
	s.ticks.Await()
	m.AwaitEnded(s.jobs)
	return m.succeeded(s.jobs)
}

// succeeded returns the jobs, of which there are so many, and none has failed.
func (m *membership) succeeded(count int) map[string]oracle.Job {
	m.t.Helper()
	jobs := map[string]oracle.Job{}
	for _, j := range wantSucceeded(m.t, m.Cluster) {
		jobs[j.ID] = j
	}
	if len(jobs) != count {
		m.t.Errorf("%d jobs are there, want %d", len(jobs), count)
	}
	return jobs
}

// killLeader kills the server that leads a stream, and starts it again later.
// Without a stream it does nothing.
func (m *membership) killLeader(stream string) {
	m.t.Helper()
	if stream == "" {
		return
	}
	leader := m.Leader(stream)
	if leader == nil {
		m.t.Fatalf("stream %s has no leader", stream)
	}
	leader.Kill()
	m.After(scale(5*time.Second, 10*time.Second, 20*time.Second))
	leader.Start()
	m.Settle()
}

// figure prints how long something took, for docs/reliability.md.
func (m *membership) figure(what string, from, to int64) {
	m.t.Helper()
	m.t.Logf("figure: %s: %v", what, time.Duration(to-from).Round(time.Millisecond))
}
