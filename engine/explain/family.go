package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/nodes"
)

const (
	mostParts  = 5    // how many parts a text names
	partsAtOne = 1024 // how many are read at a time
)

// family is the parts of a job that waits for them.
type family struct {
	total, ended, unmade int
	open                 int
	named                []part // some of those that are open
}

// part is a part, or a shard, that has not ended.
type part struct {
	name, node string
	state      machine.State
}

// lookAtFamily looks at all parts of a job. They may be some milliseconds behind.
func (e *Explainer) lookAtFamily(ctx context.Context, entry store.Entry) (*family, error) {
	shares, err := e.opts.Store.Shares(ctx, entry.Value)
	if err != nil || entry.Value.Fan == nil {
		return &family{}, err
	}
	f := &family{total: len(shares)}
	all := make([]int, len(shares))
	for i := range all {
		all[i] = i
	}
	for some := range slices.Chunk(all, partsAtOne) {
		children, err := e.opts.Store.Children(ctx, entry, shares, some)
		if err != nil {
			return nil, err
		}
		for n, child := range children {
			f.note(child, store.PartName(*entry.Value.Fan, shares, some[n]))
		}
	}
	return f, nil
}

// note counts a part, which may not be there.
func (f *family) note(child store.Entry, name string) {
	j := child.Value
	switch {
	case child.Key == "":
		f.unmade++
		return
	case j.State.Final():
		f.ended++
		return
	}
	f.open++
	if len(f.named) < mostParts {
		p := part{name: name, state: j.State}
		if j.Pin != nil {
			p.node = j.Pin.Node
		}
		f.named = append(f.named, p)
	}
}

// parts explains a job that waits for its parts.
func (v view) parts() (code, text string) {
	f, fan := v.family, v.job.Fan
	what := "parts"
	if fan.Shards {
		what = "shards"
	}
	switch {
	case f.open == 0 && f.unmade == 0:
		return v.byOwner(fmt.Sprintf("all its %s have ended", what), "count them")
	case f.open == 0:
		return v.byOwner(fmt.Sprintf("%d of its %d %s are still to be made", f.unmade, f.total, what), "do that")
	}
	names := make([]string, len(f.named))
	for i, p := range f.named {
		names[i] = v.describe(p, fan.Shards)
	}
	text = fmt.Sprintf("it waits for %d of %d %s: %s", f.open+f.unmade, f.total, what, strings.Join(names, ", "))
	if more := f.open - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if f.unmade > 0 {
		text += fmt.Sprintf("; %d not started", f.unmade)
	}
	if v.defined.IsPaused() {
		text += fmt.Sprintf("; queue %s is paused: see millrace queue resume", v.queue)
	}
	return Parts, text
}

// describe names a part, and says how it is.
func (v view) describe(p part, shard bool) string {
	how := string(p.state)
	switch m := v.node(p.node); {
	case p.node == "":
		how += ", without a node"
	case shard && m.State != nodes.Alive:
		how += fmt.Sprintf(", node %s is %s", p.node, m.State)
	case shard:
		how += ", node " + p.node
	case m.State != nodes.Alive:
		how += ", " + string(m.State)
	}
	name := p.name
	if shard {
		name = "shard " + name
	}
	return fmt.Sprintf("%s (%s)", name, how)
}
