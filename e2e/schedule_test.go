package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

// Owners come, die, freeze and are cut off, and so do servers, while schedules tick.
// Each tick has one job, whoever has made it (I1, I2).
func TestTicks(t *testing.T) {
	tell(
		t,
		scenario{"all nodes start at once", short, full, thunder},
		scenario{"owner freezes", quick, full, absence{begin: (*cluster.Node).Stop, end: (*cluster.Node).Cont, full: time.Minute}.tell},
		scenario{"owner is cut off", short, full, absence{begin: func(n *cluster.Node) { n.Drop() }, end: func(n *cluster.Node) { n.HealLinks() }, full: 30 * time.Second}.tell},
		scenario{"owners die", short, full, deadOwners},
		scenario{"owners and servers suffer", full, short, crowded},
		scenario{"users edit", short, full, editors},
		scenario{"nodes with parts of them die", short, full, dyingParts},
		scenario{"many", short, full, manySchedules},
	)
}

// shift is a crew that works by schedules.
type shift struct {
	*crew
	tables []actor.Timetable
}

// newShift starts so many nodes that serve, and workers.
func newShift(t *testing.T, servers, serving int, workers ...string) *shift {
	t.Helper()
	s := &shift{crew: newCrew(t, servers, cluster.NodeOptions{Slots: 100}, workers...)}
	for n := len(s.serving); n < serving; n++ {
		s.serving = append(s.serving, s.Serve(fmt.Sprintf("s%d", n+1), cluster.NodeOptions{}))
	}
	return s
}

// every is schedules of a fixed rate.
func every(prefix string, count int, d time.Duration, w actor.Work) actor.Timetable {
	return actor.Timetable{Prefix: prefix, Count: count, Work: w, Definition: engine.Schedule{Every: spec.Duration(d)}}
}

// tick has schedules tick.
func (s *shift) tick(tables ...actor.Timetable) {
	s.t.Helper()
	s.tables = append(s.tables, tables...)
	for _, t := range tables {
		s.Apply(t)
	}
}

// rest has all schedules paused, as soon as there is an owner that knows of all ticks,
// waits until all has ended and has it judged. It returns the jobs of ticks.
func (s *shift) rest() (jobs []oracle.Job) {
	s.t.Helper()
	s.awaitOwner()
	s.After(2 * time.Second)
	s.Rest(s.tables...)
	s.Judge()
	ends := map[string]int{}
	for _, j := range s.Jobs() {
		if j.Schedule == "" {
			continue
		}
		jobs = append(jobs, j)
		word := j.State
		if j.State == "skipped" && j.Error != nil {
			word += " " + j.Error.Code
		}
		ends[word]++
	}
	s.t.Logf("%d jobs of schedules: %v; %s", len(jobs), ends, s.lateness())
	return jobs
}

// allRan checks that no tick was declined, nor failed, but one of each schedule at
// most, which had not begun when that was paused.
func (s *shift) allRan(jobs []oracle.Job) {
	s.t.Helper()
	caught := map[string]bool{}
	for _, j := range jobs {
		switch {
		case j.State == "succeeded":
		case j.State == "skipped" && j.Error != nil && j.Error.Code == "paused" && !caught[j.Schedule]:
			caught[j.Schedule] = true
		default:
			s.t.Errorf("%s is %s: %+v", j.ID, j.State, j.Error)
		}
	}
}

// thunder starts all nodes at once, again and again.
func thunder(t *testing.T, servers int) {
	s := newShift(t, servers, 5, "w1")
	s.tick(every("fast", 3, time.Second, actor.Work{}), every("slow", 3, scale(0, 5*time.Second, 20*time.Second), actor.Work{}))
	for range scale(0, 3, 20) {
		for _, n := range s.serving {
			n.Kill()
		}
		for _, n := range s.serving {
			n.Start()
		}
		for _, n := range s.serving {
			s.Await(n.ID+" is ready", n.Ready)
		}
		s.After(scale(0, 3*time.Second, 15*time.Second))
	}
	s.allRan(s.rest())
	for _, n := range s.serving {
		for line := range strings.Lines(n.Log()) {
			if strings.Contains(line, "conflict") && !strings.Contains(line, "level=DEBUG") {
				t.Errorf("%s says %s", n.ID, line)
			}
		}
	}
}

// absence is an owner that is away for a while, and comes back as if nothing had been.
type absence struct {
	begin, end func(*cluster.Node)
	full       time.Duration // for which it is away in full
}

func (a absence) tell(t *testing.T, servers int) {
	s := newShift(t, servers, 3, "w1")
	s.tick(every("fast", scale(3, 10, 20), time.Second, actor.Work{For: 50}))
	s.After(scale(2*time.Second, 5*time.Second, 30*time.Second))
	old := s.owner()
	began := s.Ledger.Now()
	a.begin(old)
	other := s.AwaitEntry("there is another owner", func(e ledger.Entry) bool {
		return e.What == ledger.Owner && e.At > began && e.Node != "" && e.Node != old.ID
	})
	s.figure("the owner is away until another one is there", began, other.At)
	first := s.AwaitEntry("ticks go on", func(e ledger.Entry) bool { return e.What == ledger.Start && e.At > other.At })
	s.figure("and until the first tick is made up for", began, first.At)
	s.After(max(3*time.Second, scale(0, 0, a.full-time.Duration(s.Ledger.Now()-began))))
	a.end(old)
	s.After(scale(3*time.Second, 10*time.Second, 30*time.Second))
	s.allRan(s.rest())
}

// owner is the node that serves and is the owner.
func (c *crew) owner() *cluster.Node {
	c.t.Helper()
	owner := ""
	for _, e := range c.Entries() {
		if e.What == ledger.Owner {
			owner = e.Node
		}
	}
	for _, n := range c.serving {
		if n.ID == owner {
			return n
		}
	}
	c.t.Fatalf("%q is the owner, and does not serve", owner)
	return nil
}

// awaitOwner waits until there is an owner, which is among those that serve.
func (s *shift) awaitOwner() *cluster.Node {
	s.t.Helper()
	s.Await("there is an owner", func() bool {
		held := false
		for _, e := range s.Entries() {
			if e.What == ledger.Owner {
				held = e.Node != ""
			}
		}
		return held
	})
	return s.owner()
}

// deadOwners kills one owner after the other, and has ticks of the past made up for,
// twice.
func deadOwners(t *testing.T, servers int) {
	s := newShift(t, servers, 3, "w1", "w2")
	s.tick(every("s", scale(0, 60, 500), time.Second, actor.Work{}))
	lasts, kills := scale(0, 45*time.Second, 5*time.Minute), scale(0, 4, 20)
	to := time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	for round := range kills {
		if round < 2 {
			s.Run("schedule", "backfill", "s0", to.Add(-time.Minute).Format(time.RFC3339), to.Format(time.RFC3339))
		}
		s.After(time.Duration(rand.Int64N(int64(2 * lasts / time.Duration(kills)))))
		n := s.awaitOwner()
		n.Kill()
		n.Start()
	}
	s.awaitOwner()
	s.After(5 * time.Second) // what was due in between is made: a pause would decline it
	jobs := s.rest()
	s.allRan(jobs)
	if n := count(jobs, func(j oracle.Job) bool { return j.Tick.By == "backfill" }); n != 60 {
		t.Errorf("there are %d jobs of a minute of the past, want 60", n)
	}
}

// count returns how many jobs are as they are to be.
func count(jobs []oracle.Job, matches func(oracle.Job) bool) (n int) {
	for _, j := range jobs {
		if matches(j) {
			n++
		}
	}
	return n
}

// crowded is five nodes, of which the owner freezes or is slow, or the server that
// leads the cursors dies.
func crowded(t *testing.T, servers int) {
	s := newShift(t, servers, 5, "w1", "w2")
	s.tick(every("s", scale(0, 60, 1000), time.Second, actor.Work{}))
	wait := scale(0, 5*time.Second, 20*time.Second)
	for round := range scale(0, 3, 15) {
		s.After(wait)
		n := s.awaitOwner()
		switch round % 3 {
		case 0:
			n.Stop()
			s.After(s.Lease + 2*time.Second)
			n.Cont()
		case 1:
			n.Delay(500 * time.Millisecond)
			s.After(wait)
			n.HealLinks()
		case 2:
			leader := s.Servers()[0]
			if servers > 1 {
				leader = s.Leader("KV_mr_default_cursor")
			}
			if leader == nil {
				t.Fatal("the stream of cursors has no leader")
			}
			leader.Kill()
			s.After(wait / 5)
			leader.Start()
			s.Settle()
		}
	}
	s.After(wait)
	s.allRan(s.rest())
}

// editors pause, resume, edit, delete and make anew random schedules, while an owner
// dies.
func editors(t *testing.T, servers int) {
	s := newShift(t, servers, 2, "w1", "w2")
	table := every("s", scale(0, 80, 1000), time.Second, actor.Work{})
	table.Edits, table.For = scale(0, 15.0, 50), scale(0, 25*time.Second, 5*time.Minute)
	s.tables = append(s.tables, table)
	editor := s.Keep(table)
	s.After(table.For / 2)
	n := s.awaitOwner()
	n.Kill()
	n.Start()
	s.Kept(editor)
	s.rest()
}

// dyingParts is schedules of broadcasts and of sharded jobs, while workers die. A shard
// moves, and a part fails its broadcast.
func dyingParts(t *testing.T, servers int) {
	s := newShift(t, servers, 2, "w1", "w2", "w3")
	work := actor.Work{For: 500}
	shards, parts := every("shards", 2, 3*time.Second, work), every("parts", 2, 3*time.Second, work)
	shards.Definition.Shards, shards.Definition.MaxAttempts = 4, 1000
	parts.Broadcast = true
	s.tick(shards, parts)
	for range scale(0, 4, 20) {
		s.After(scale(0, 5*time.Second, 15*time.Second))
		n := s.nodes[fmt.Sprintf("w%d", 1+rand.IntN(3))]
		n.Kill()
		n.Start()
	}
	s.After(s.Lease)
	done := 0
	for _, j := range s.rest() {
		if sharded := j.Children != nil && j.Children.Shards; sharded && j.State != "succeeded" && j.State != "skipped" {
			t.Errorf("%s is %s: %+v", j.ID, j.State, j.Error)
		}
		if j.State == "succeeded" {
			done++
		}
	}
	if done == 0 {
		t.Error("no job of a schedule has succeeded")
	}
	s.AwaitNoMail(nil)
}

// manySchedules are a hundred thousand, of which most have nothing to do.
func manySchedules(t *testing.T, servers int) {
	s := newShift(t, servers, 2, "w1", "w2")
	daily := actor.Timetable{Prefix: "daily", Count: scale(0, 900, 90_000), Definition: engine.Schedule{Cron: "30 2 * * *"}}
	minutely := actor.Timetable{Prefix: "minutely", Count: scale(0, 90, 9_000), Definition: engine.Schedule{
		Cron: "* * * * *", Jitter: spec.Duration(scale(0, 5*time.Second, 50*time.Second)),
	}}
	s.tick(daily, minutely, every("often", scale(0, 10, 1_000), 5*time.Second, actor.Work{}))
	s.After(scale(0, time.Until(time.Now().Truncate(time.Minute).Add(time.Minute+8*time.Second)), 15*time.Minute))
	s.allRan(s.rest())
}
