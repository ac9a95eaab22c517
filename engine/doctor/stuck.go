package doctor

import (
	"fmt"
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
			Level: Unseen, Text: fmt.Sprintf("there are %d jobs, and %d of them were looked at", c.jobs.all, c.jobs.seen),
			Remedy: "shorten the retention of queues, so that there are fewer",
		}}
	}
	return fine("%s looked at", count(int(c.jobs.seen), "job"))
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
			"queue %s has no consumer, so its items reach nobody, although there %s %s %s", queue, either(len(ids), "is", "are"), either(len(ids), "node", "nodes"), brief(ids)))
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
				"%s of queue %s came more than once, and only %s %s there", count(again, "item"), queue, count(running, "job"), either(running, "runs", "run")))
		}
	}
	return found
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
		found = append(found, wrong(letOwner, "%s %s said to run on node %s, which has been gone for longer than twice the lease of %v: %s",
			count(len(ids), "job"), either(len(ids), "is", "are"), node, c.settings.Lease, brief(ids)))
	}
	return found
}

// checkItems looks for jobs that should be offered to workers and are not.
func checkItems(c *chart) []Finding {
	if len(c.stuck) == 0 {
		return nil
	}
	return []Finding{wrong(askOwner, "%s ready for more than %v %s no item, so no worker gets to know: %s",
		count(len(c.stuck), "job"), late, either(len(c.stuck), "has", "have"), brief(c.stuck))}
}

// checkTimers looks for timers that the owner has not fired.
func checkTimers(c *chart) []Finding {
	n := c.overdue.timers
	if n == 0 {
		return nil
	}
	return []Finding{wrong("see whether there is an owner, and its log", "%s %s overdue, by up to %v",
		count(n, "timer"), either(n, "is", "are"), c.now.Sub(c.overdue.oldest).Round(time.Second))}
}

// checkReadable looks for records of a later version.
func checkReadable(c *chart) []Finding {
	if c.jobs.unknown == 0 {
		return nil
	}
	return []Finding{wrong("upgrade what is of an older version", "%s in a state that this program does not know",
		count(c.jobs.unknown, "job"))}
}
