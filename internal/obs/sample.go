package obs

import (
	"cmp"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Sample is what a process knows of itself when it is asked.
type Sample struct {
	Ready bool // it can work now
	Owner bool
	// Slots is how many handlers may run at once, and Used how many slots
	// attempts have: those whose outcome is under way are among them.
	Slots, Used int
	// Jobs are those that have not ended, by queue. Only the owner knows.
	Jobs map[string]Jobs
	// Queues are the items of queues. Only the owner asks.
	Queues map[string]Items
}

// Jobs counts jobs by what they do.
type Jobs struct{ Pending, Delayed, Running, Waiting int }

// Items counts the items of a queue: in nobody's hands, and in those of workers.
type Items struct{ Waiting, Taken uint64 }

// maxQueues bounds how many queues have numbers of their own. Who submits can make up
// as many as he likes.
const maxQueues = 500

// bounded returns s with the numbers of the queues that have the most jobs, and those
// of all others under the name "other".
func (s Sample) bounded() Sample {
	if len(s.Jobs) <= maxQueues {
		return s
	}
	all := func(n Jobs) int { return n.Pending + n.Delayed + n.Running + n.Waiting }
	names := slices.SortedFunc(maps.Keys(s.Jobs), func(a, b string) int {
		return cmp.Or(all(s.Jobs[b])-all(s.Jobs[a]), cmp.Compare(a, b))
	})
	jobs, items := make(map[string]Jobs, maxQueues+1), make(map[string]Items, maxQueues+1)
	for i, name := range names {
		as := name
		if i >= maxQueues {
			as = other
		}
		n, more := jobs[as], s.Jobs[name]
		jobs[as] = Jobs{n.Pending + more.Pending, n.Delayed + more.Delayed, n.Running + more.Running, n.Waiting + more.Waiting}
		if more, known := s.Queues[name]; known {
			n := items[as]
			items[as] = Items{n.Waiting + more.Waiting, n.Taken + more.Taken}
		}
	}
	s.Jobs, s.Queues = jobs, items
	return s
}

// gauges describe what is sampled.
type gauges struct {
	ready, owner, slots, used, jobs, waiting, taken *prometheus.Desc
}

func newGauges(labels prometheus.Labels) gauges {
	desc := func(name, help string, by ...string) *prometheus.Desc {
		return prometheus.NewDesc("millrace_"+name, help, by, labels)
	}
	return gauges{
		ready:   desc("ready", "1 if this process can work: NATS is there and the node, if there is one, is registered."),
		owner:   desc("owner", "1 if this process is the owner. What follows from it, jobs and items of queues, only the owner tells."),
		slots:   desc("slots", "How many handlers may run at once in this process."),
		used:    desc("slots_used", "How many attempts this process has, those whose outcome is under way included."),
		jobs:    desc("jobs", "Jobs that have not ended, by state: pending, running, waiting (for children), or delayed, which is scheduled or retrying. Some ten seconds behind.", "queue", "state"),
		waiting: desc("queue_items_waiting", "Items of jobs that are ready and that nobody has.", "queue"),
		taken:   desc("queue_items_taken", "Items of jobs that are in the hands of workers, or to come back from them.", "queue"),
	}
}

func (g gauges) describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.ready, g.owner, g.slots, g.used, g.jobs, g.waiting, g.taken} {
		ch <- d
	}
}

func (g gauges) collect(ch chan<- prometheus.Metric, s Sample) {
	put := func(d *prometheus.Desc, v float64, by ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, by...)
	}
	put(g.ready, truth(s.Ready))
	put(g.owner, truth(s.Owner))
	put(g.slots, float64(s.Slots))
	put(g.used, float64(s.Used))
	s = s.bounded()
	for queue, n := range s.Jobs {
		put(g.jobs, float64(n.Pending), queue, "pending")
		put(g.jobs, float64(n.Delayed), queue, "delayed")
		put(g.jobs, float64(n.Running), queue, "running")
		put(g.jobs, float64(n.Waiting), queue, "waiting")
	}
	for queue, n := range s.Queues {
		put(g.waiting, float64(n.Waiting), queue)
		put(g.taken, float64(n.Taken), queue)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
