package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

// placeFlags say on which node a job runs.
type placeFlags struct {
	On     filled            `help:"Run the job on this node and no other." placeholder:"NODE"`
	Select map[string]string `mapsep:"," help:"Run it on a node with these labels; jobs are spread over those. May be repeated." placeholder:"KEY=VALUE"`
	Key    filled            `help:"Run it on the node to which this text leads, always the same while that is there." placeholder:"TEXT"`
	Near   filled            `help:"Run it on the node that ran this job last, if it is there." placeholder:"JOB"`
	Else   string            `help:"What becomes of the job when there is no such node: wait (for one), any (it is like any other job) or fail (it is lost). Default: wait." placeholder:"POLICY"`
}

// place returns what the flags say.
func (f placeFlags) place() engine.Place {
	return engine.Place{Node: string(f.On), Select: f.Select, Key: string(f.Key), Near: string(f.Near), Else: engine.Else(f.Else)}
}

// check refuses flags that do not go together.
func (f placeFlags) check() error {
	errs := []error{someLabels("--select", f.Select)}
	somewhere := len(f.Select) > 0 || f.Key != "" || f.Near != ""
	if f.On != "" {
		errs = append(errs, name.Check("node", string(f.On)))
	}
	if f.On != "" && somewhere {
		errs = append(errs, errors.New("--on names the node: leave out --select, --key and --near"))
	}
	if f.Near != "" {
		errs = append(errs, checkJobID(string(f.Near)))
	}
	if f.Else != "" && f.On == "" && !somewhere {
		errs = append(errs, errors.New("there is --else without --on, --select, --key or --near: say where the job is to run"))
	}
	if f.Else != "" && !slices.Contains([]engine.Else{engine.ElseWait, engine.ElseAny, engine.ElseFail}, engine.Else(f.Else)) {
		errs = append(errs, fmt.Errorf("--else is %q: use wait, any or fail", f.Else))
	}
	return errors.Join(errs...)
}

// someLabels refuses a flag for labels that was given none, as if the variable of a
// script is not set: every node would have them.
func someLabels(flag string, given map[string]string) error {
	if given != nil && len(given) == 0 {
		return fmt.Errorf("%s: it is empty: leave it out if that is meant", flag)
	}
	return nil
}

// pinned says on which node a job runs.
func pinned(p *engine.PinInfo) string {
	if p == nil {
		return ""
	}
	text := cmp.Or(p.Node, "no node yet")
	if len(p.Selector) > 0 {
		text += ", of those with " + labels(p.Selector)
	}
	if p.Key != "" {
		text += ", by key " + p.Key
	}
	return text + ", else " + p.Else
}

// related names the job that a part belongs to.
func related(j engine.JobInfo) string {
	if j.Parent == nil || j.Part == nil {
		return deref(j.Parent)
	}
	return fmt.Sprintf("%s, part %s", *j.Parent, *j.Part)
}

// pieces is what the children of a job are called.
func pieces(c *engine.ChildrenInfo) string {
	if c != nil && c.Shards {
		return "shard"
	}
	return "part"
}

// partCount says how many parts a job has, and how they ended if it has.
func partCount(c *engine.ChildrenInfo) string {
	if c == nil || c.Total == 0 {
		return ""
	}
	var how []string
	for _, n := range []struct {
		count int
		state string
	}{{c.Succeeded, "succeeded"}, {c.Failed, "failed"}, {c.Lost, "lost"}, {c.Cancelled, "cancelled"}, {c.Unstarted, "not started"}} {
		if n.count > 0 {
			how = append(how, fmt.Sprintf("%d %s", n.count, n.state))
		}
	}
	if len(how) == 0 {
		return fmt.Sprint(c.Total)
	}
	return fmt.Sprintf("%d: %s", c.Total, strings.Join(how, ", "))
}

// rules says how a job with parts is to go.
func rules(c *engine.ChildrenInfo) string {
	switch {
	case c == nil:
		return ""
	case c.Shards:
		return "placed " + cmp.Or(c.Strategy, string(engine.ShardsEven))
	}
	text := fmt.Sprintf("done %s, on lost %s", c.Done, c.OnLost)
	if c.MaxParallel > 0 {
		text += fmt.Sprintf(", %d at a time", c.MaxParallel)
	}
	return text
}

// selector names the labels that the nodes of a job with parts must have.
func selector(c *engine.ChildrenInfo) string {
	if c == nil {
		return ""
	}
	return labels(c.Selector)
}
