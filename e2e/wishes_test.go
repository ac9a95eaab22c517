package e2e_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// What users want holds from the answer on, on every worker and whatever happens
// to those that knew of it: a limit, a pause, a drain, and a cancel of a job whose
// worker never hears of it (I5, I6).
func TestWishes(t *testing.T) {
	tell(t, scenario{name: "users", one: short, three: full, tell: wishes})
}

// heeded is for how long a wish is left alone: longer than the oracle gives the
// workers to heed it.
const heeded = 6 * time.Second

func wishes(t *testing.T, servers int) {
	c := begin(t, cluster.Options{Servers: servers})
	c.Serve("s1", cluster.NodeOptions{})
	queues := []string{"mail", "narrow"}
	w1 := c.Worker("w1", cluster.NodeOptions{Queues: queues})
	w2 := c.Worker("w2", cluster.NodeOptions{Queues: queues})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Limit("narrow", 2))
	loads := []cluster.Load{
		{Queue: "mail", Prefix: "a", Count: 1000, Rate: 40, Work: actor.Work{For: 50}},
		{Queue: "narrow", Prefix: "b", Count: 80, Work: actor.Work{For: 300}},
		{Queue: "mail", Prefix: "c", Count: 4, Work: actor.Work{For: 20000}},
	}
	for _, load := range loads[:2] {
		c.Submit(load)
	}
	awaitStarts(c, 40)

	must(c.Pause("mail"))
	c.After(heeded)
	must(c.Resume("mail"))
	must(c.Drain(w1.ID))
	c.After(heeded)
	must(c.Undrain(w1.ID))
	c.Submit(loads[2])

	jobs := []string{"mail.c0", "mail.c1", "mail.c2", "mail.c3"}
	for _, job := range jobs {
		c.AwaitStart(job, 1)
	}
	w1.Stop()
	w2.Stop()
	for _, job := range jobs {
		must(c.Cancel(job))
	}
	w1.Kill()
	w2.Kill()
	c.Worker("w3", cluster.NodeOptions{Queues: queues})
	c.AwaitEnded(loads[0].Count + loads[1].Count + loads[2].Count)
	c.Judge()
	for _, job := range jobs {
		if l := livesOf(c)[job]; l.record.State != "cancelled" || len(l.starts) != 1 {
			t.Errorf("%s is %s, started on %v, want it cancelled in its first attempt", job, l.record.State, l.nodes())
		}
	}
}
