package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// pinned is the jobs that wait for one node, or for some node to be found.
type pinned struct {
	jobs int
	id   string // of one of them
}

// family is a job that waits for its parts.
type family struct {
	open   int       // parts that have not ended
	newest time.Time // when it, or one of its parts, was stored last
}

// noteReady takes in a job that could run.
func (c *chart) noteReady(id string, at place, g store.Glance) {
	if !g.Pinned {
		c.jobs.waiting[at]++
		return
	}
	p := c.jobs.pinned[g.Pin]
	c.jobs.pinned[g.Pin] = pinned{p.jobs + 1, id}
}

// noteFamily takes in a job that waits for its parts, or a part of one. A parent is
// stored before its parts are, or are made to go on.
func (c *chart) noteFamily(id string, g store.Glance, at time.Time) {
	if g.State == machine.Waiting {
		c.jobs.families[id] = &family{newest: at}
	}
	f := c.jobs.families[g.Parent]
	if f == nil {
		return
	}
	f.newest = at // later records come later
	if !g.State.Final() {
		f.open++
	}
}

// seeParts finds the jobs that wait for parts of which none goes on, and have done so
// for some time. A part that moved while records were read was passed over, so the
// parts are read again.
func (c *chart) seeParts(ctx context.Context) error {
	c.partless = nil
	jobs := kv.Open(c.pub, c.opts.Namespace.Bucket(streams.Jobs), store.Codec())
	asked := 0
	for _, id := range slices.Sorted(maps.Keys(c.jobs.families)) {
		f := c.jobs.families[id]
		if f.open > 0 || f.newest.After(c.now.Add(-late)) {
			continue
		}
		if asked++; asked > mostSure {
			return nil
		}
		over, err := partless(ctx, jobs, id)
		if err != nil {
			return err
		}
		if over {
			c.partless = append(c.partless, id)
		}
	}
	return nil
}

// partless reports whether a job waits, and none of its first thousand parts goes on.
// It says nothing of one whose parts are not listed in its record.
func partless(ctx context.Context, jobs *kv.Bucket[machine.Job], id string) (bool, error) {
	entry, err := jobs.Get(ctx, id)
	switch {
	case errors.Is(err, kv.ErrNotFound), errors.Is(err, store.ErrUnreadable):
		return false, nil
	case err != nil:
		return false, err
	}
	j := entry.Value
	if j.State != machine.Waiting || j.Fan == nil || j.Fan.SharesBlob != nil {
		return false, nil
	}
	var keys []string
	for i := range j.Fan.Shares[:min(len(j.Fan.Shares), direct.Max)] {
		keys = append(keys, store.ChildID(id, store.PartName(*j.Fan, j.Fan.Shares, i)))
	}
	parts, err := jobs.GetManyStale(ctx, keys)
	goesOn := func(part store.Entry) bool { return !part.Value.State.Final() }
	return err == nil && !slices.ContainsFunc(parts, goesOn), err
}

// checkPinned looks for jobs that wait for a node which is not there, or has not been
// found.
func checkPinned(c *chart) (found []Finding) {
	there := map[string]bool{}
	for _, m := range c.nodes {
		there[m.ID] = m.State != nodes.Offline
	}
	for _, node := range slices.Sorted(maps.Keys(c.jobs.pinned)) {
		p := c.jobs.pinned[node]
		jobs, wait := count(p.jobs, "job"), either(p.jobs, "waits", "wait")
		switch {
		case node == "":
			found = append(found, warning(fmt.Sprintf(`see "millrace job why %s" for what it takes`, p.id), "%s %s for a node that fits, and there is none: %s", jobs, wait, p.id))
		case !there[node]:
			found = append(found, warning(fmt.Sprintf("start it again, or cancel what waits for it: see millrace job why %s", p.id),
				"%s %s for node %s, which is not there: %s", jobs, wait, node, p.id))
		}
	}
	return found
}

// checkWaiting looks for jobs that wait for parts which have all ended: the owner is to
// count them.
func checkWaiting(c *chart) []Finding {
	if len(c.partless) == 0 {
		return nil
	}
	return []Finding{wrong(letOwner, "%s %s for parts, and none of these goes on: %s",
		count(len(c.partless), "job"), either(len(c.partless), "waits", "wait"), brief(c.partless))}
}
