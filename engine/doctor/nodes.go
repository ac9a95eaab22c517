package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
)

// checkOwner looks whether there is an owner.
func checkOwner(c *chart) []Finding {
	for _, m := range c.nodes {
		if m.Owner && m.State != nodes.Offline {
			return fine("node %s is the owner", m.ID)
		}
	}
	return []Finding{wrong(`start "millrace serve", or a worker without --no-owner`,
		"no node is the owner: nothing fires timers, judges dead nodes and looks after jobs")}
}

// checkDrained looks for nodes that take nothing new.
func checkDrained(c *chart) (found []Finding) {
	for _, m := range c.nodes {
		if m.State == nodes.Draining {
			found = append(found, warning(fmt.Sprintf("stop it, or let it go on with millrace node undrain %s", m.ID),
				"node %s is draining: it takes no jobs", m.ID))
		}
	}
	return found
}

// checkWorkers looks for queues that nobody works on.
func checkWorkers(c *chart) (found []Finding) {
	for _, queue := range c.waitingQueues() {
		if len(c.taking(queue)) > 0 {
			continue
		}
		jobs, kinds := 0, []string(nil)
		for p, n := range c.jobs.waiting {
			if p.queue == queue {
				jobs, kinds = jobs+n, append(kinds, p.kind)
			}
		}
		slices.Sort(kinds)
		remedy := "start a worker with " + either(len(kinds), "kind", "kinds") + " " + brief(kinds)
		if slices.ContainsFunc(kinds, func(kind string) bool { return name.Queue(kind) != queue }) {
			remedy += " that takes from queue " + queue
		}
		found = append(found, wrong(remedy,
			"%s %s in queue %s, and no node takes from it", count(jobs, "job"), either(jobs, "waits", "wait"), queue))
	}
	return found
}

// checkKinds looks for kinds that nobody handles, in queues that somebody works
// on.
func checkKinds(c *chart) (found []Finding) {
	for _, p := range slices.SortedFunc(maps.Keys(c.jobs.waiting), byPlace) {
		taking := c.taking(p.queue)
		handles := func(m nodes.Member) bool { return slices.Contains(m.Kinds, p.kind) }
		if len(taking) == 0 || slices.ContainsFunc(taking, handles) {
			continue
		}
		var ids []string
		for _, m := range taking {
			ids = append(ids, m.ID)
		}
		found = append(found, wrong("start a worker with that kind",
			"%s of kind %s %s in queue %s, and no node that takes from it has a handler: %s",
			count(c.jobs.waiting[p], "job"), p.kind, either(c.jobs.waiting[p], "waits", "wait"), p.queue, brief(ids)))
	}
	return found
}

func byPlace(a, b place) int {
	return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.kind, b.kind))
}

// waitingQueues returns the queues that have jobs which wait for a worker.
func (c *chart) waitingQueues() []string {
	queues := map[string]bool{}
	for p := range c.jobs.waiting {
		queues[p.queue] = true
	}
	return slices.Sorted(maps.Keys(queues))
}

// taking returns the nodes that take from a queue.
func (c *chart) taking(queue string) (list []nodes.Member) {
	for _, m := range c.nodes {
		if m.State == nodes.Alive && m.TakesFrom(queue) {
			list = append(list, m)
		}
	}
	return list
}

// count returns a number of things.
func count(n int, thing string) string { return fmt.Sprintf("%d %s", n, either(n, thing, thing+"s")) }

// either returns what is said of one, or of several.
func either(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}

// mostNamed is how many things a finding names.
const mostNamed = 3

// brief names the first few.
func brief(names []string) string {
	text := strings.Join(names[:min(len(names), mostNamed)], ", ")
	if more := len(names) - mostNamed; more > 0 {
		text = fmt.Sprintf("%s and %d more", text, more)
	}
	return text
}
