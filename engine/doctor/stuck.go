package doctor

import (
	"maps"
	"slices"
	"time"
)

// How stuck jobs come to go on.
const (
	letOwner = `see "millrace job why ID", and the owner's log if it does not go on within a minute`
	askOwner = `let the owner look with "millrace reconcile", and see its log`
)

// checkScan says whether all jobs were read.
func checkScan(c *chart) []Finding {
	if c.jobs.seen == c.opts.MostScanned && c.jobs.all > c.jobs.seen {
		return []Finding{{
			Level: Unseen, Text: number(c.jobs.all, "job") + " are there, and only " + number(c.jobs.seen, "job") + " were looked at",
			Remedy: "shorten the retention of queues, so that there are fewer",
		}}
	}
	return fine("%s looked at", number(c.jobs.seen, "job"))
}

// checkConsumers looks for queues that have a worker and no consumer.
func checkConsumers(c *chart) (found []Finding) {
	for _, queue := range c.waitingQueues() {
		taking := c.taking(queue)
		if _, has := c.backlogs[queue]; has || len(taking) == 0 {
			continue
		}
		var ids []string
		for _, m := range taking {
			ids = append(ids, m.ID)
		}
		found = append(found, wrong("let a worker of the queue create consumers of stream "+c.opts.Namespace.WorkStream(),
			"queue %s has no consumer, so its items reach nobody, although there is %s %s", queue, plural(len(ids), "node"), brief(ids)))
	}
	return found
}

// checkRedelivered looks for items that come back. One that was handed over comes
// a second time, and then its job runs.
func checkRedelivered(c *chart) (found []Finding) {
	for _, queue := range slices.Sorted(maps.Keys(c.backlogs)) {
		again, running := c.backlogs[queue].Again, c.jobs.running[queue]
		if again > running {
			found = append(found, warning("see the logs of the workers of the queue",
				"%s of queue %s came more than once, and only %s there", number(uint64(again), "item"), queue, runs(running)))
		}
	}
	return found
}

func runs(n int) string {
	if n == 1 {
		return "1 job runs"
	}
	return number(uint64(n), "job") + " run"
}

// checkOffline looks for jobs that are said to run on nodes that are long gone.
func checkOffline(c *chart) (found []Finding) {
	byNode := map[string][]string{}
	for _, o := range c.jobs.orphans {
		since := c.gone[o.node]
		if since.IsZero() || c.now.Sub(since) > 2*c.settings.Lease {
			byNode[o.node] = append(byNode[o.node], o.id)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		ids := byNode[node]
		is := "are"
		if len(ids) == 1 {
			is = "is"
		}
		found = append(found, wrong(letOwner, "%s %s said to run on node %s, which has been gone for longer than twice the lease of %v: %s",
			number(uint64(len(ids)), "job"), is, node, c.settings.Lease, brief(ids)))
	}
	return found
}

// checkItems looks for jobs that should be offered to workers and are not.
func checkItems(c *chart) []Finding {
	if len(c.stuck) == 0 {
		return nil
	}
	has := "have"
	if len(c.stuck) == 1 {
		has = "has"
	}
	return []Finding{wrong(askOwner, "%s ready for more than %v %s no item, so no worker gets to know: %s",
		number(uint64(len(c.stuck)), "job"), late, has, brief(c.stuck))}
}

// checkTimers looks for timers that the owner has not fired.
func checkTimers(c *chart) []Finding {
	n := c.overdue.timers
	if n == 0 {
		return nil
	}
	is := "are"
	if n == 1 {
		is = "is"
	}
	return []Finding{wrong("see whether there is an owner, and its log", "%s %s overdue, by up to %v",
		number(uint64(n), "timer"), is, c.now.Sub(c.overdue.oldest).Round(time.Second))}
}

// checkReadable looks for records of a later version.
func checkReadable(c *chart) []Finding {
	if c.jobs.unknown == 0 {
		return nil
	}
	return []Finding{wrong("upgrade what is of an older version", "%s in a state that this program does not know",
		number(uint64(c.jobs.unknown), "job"))}
}
