package machine

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"
)

// What the laws are tried on of jobs that are for a node, or have relatives.

// home is the node that j is for, or a, which any job may run on.
func home(j Job) string {
	if j.Pin != nil && j.Pin.Node != "" {
		return j.Pin.Node
	}
	return "a"
}

var (
	anyX  = &Rule{Select: map[string]string{"disk": "fast"}}
	parts = []Share{{Node: "a", Incarnation: 1}, {Node: "b", Incarnation: 2}}
)

// newPinned returns jobs as they are submitted that are for a node: parts under
// both policies, one that any worker may have in the end, shards with and without
// a place, and one that a rule placed and that ends without a node.
func newPinned(limit int) []Job {
	job := func(node string, rule *Rule, otherwise Else) Job {
		return Job{
			ID: "mail.1", Kind: "mail.send", State: Pending, MaxAttempts: limit, Created: storyStart,
			Pin: &Pin{Node: node, Incarnation: 1, Rule: rule, Else: otherwise},
		}
	}
	parent := Parent{ID: "mail.0", Created: storyStart, Part: "a"}
	fails, waits := job("a", nil, ElseFail), job("a", nil, ElseWait)
	fails.Parent, waits.Parent = &parent, &parent
	shard := job("a", anyX, ElseWait)
	shard.Parent = &Parent{ID: "mail.0", Created: storyStart, Part: "0", Shard: &Shard{Total: 2, Parameter: "north"}}
	return []Job{fails, waits, job("a", nil, ElseAny), shard, job("", anyX, ElseWait), job("b", anyX, ElseFail), job("", anyX, ElseAny)}
}

// newFans returns jobs with children as they are submitted: a broadcast, one that
// is for later, and a sharded job that is for later and has limits.
func newFans() []Job {
	j := Job{ID: "mail.1", Kind: "mail.send", State: Waiting, Created: storyStart}
	j.Fan = &Fan{Shares: parts, Total: 2, OnLost: ElseFail, Done: GoalAll}
	later := j
	later.State, later.Wait, later.Due = Scheduled, WaitDelay, storyStart.Add(time.Second)
	later.Fan = &Fan{OnLost: ElseWait, Done: GoalCount, Need: 1, MaxParallel: 1}
	shards := later
	shards.StartBy, shards.Deadline = storyStart.Add(time.Second), storyStart.Add(2*time.Second)
	shards.Fan = &Fan{Shards: true, Shares: make([]Share, 3), Total: 3, Done: GoalAll}
	return []Job{j, later, shards}
}

// everyRuling returns what somebody can say of the place and of the children of a
// job, whether it has any or not.
func everyRuling(j Job, at time.Time) []Event {
	all := []Event{
		Deserted{At: at},
		Placed{At: at},
		Dispatched{At: at},
		Dispatched{At: at, Shares: parts, Total: len(parts)},
		Dispatched{At: at, Blob: &Blob{Name: "mail.1.s", Size: 1}, Total: 900},
		Concluded{At: at, Tally: Tally{Succeeded: 2}, Result: json.RawMessage(`[1,2]`)},
		Concluded{At: at, Tally: Tally{Lost: 1, Missed: []string{"b"}}, Error: &Error{Message: "1 of 2 parts did not succeed"}},
	}
	pin := Pin{Else: ElseWait}
	if j.Pin != nil {
		pin = *j.Pin
	}
	for _, node := range []string{"a", "b", ""} {
		moved := pin
		moved.Node, moved.Incarnation = node, 7
		all = append(all, Placed{At: at, Pin: &moved})
	}
	bound := pin
	bound.Node, bound.Rule = "c", nil // nobody takes a rule away
	other := pin
	other.Node, other.Rule = "c", &Rule{Key: "k"}
	return append(all, Placed{At: at, Pin: &bound}, Placed{At: at, Pin: &other})
}

// drawFamily draws what j is for and who its relatives are.
func drawFamily(t *rapid.T, j Job) Job {
	switch rapid.IntRange(0, 4).Draw(t, "family") {
	case 0:
		j.Fan = &Fan{
			Shards: rapid.Bool().Draw(t, "shards"), OnLost: ElseFail, Done: GoalAll,
			MaxParallel: rapid.IntRange(0, 3).Draw(t, "parallel"),
			Select:      rapid.SampledFrom([]map[string]string{nil, {"disk": "fast"}}).Draw(t, "labels of the nodes"),
		}
		if j.State == Pending {
			j.State, j.Fan.Shares, j.Fan.Total = Waiting, parts, len(parts)
		}
	case 1, 2:
		j.Pin = &Pin{
			Node: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pinned to"), Incarnation: rapid.Uint64Range(0, 3).Draw(t, "life"),
			Else: rapid.SampledFrom([]Else{ElseWait, ElseAny, ElseFail}).Draw(t, "else"),
		}
		if rapid.Bool().Draw(t, "rule") {
			j.Pin.Rule = &Rule{Key: rapid.SampledFrom([]string{"", "k"}).Draw(t, "key"), Select: anyX.Select}
			j.Pin.Node = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "placed on")
		}
		j = drawParent(t, j)
	}
	return j
}

func drawParent(t *rapid.T, j Job) Job {
	if !rapid.Bool().Draw(t, "child") {
		return j
	}
	j.Parent = &Parent{ID: "mail.0", Created: storyStart, Part: "0"}
	if j.Pin.Rule != nil {
		j.Parent.Shard = &Shard{Index: rapid.IntRange(0, 2).Draw(t, "index"), Total: 3, Parameter: rapid.String().Draw(t, "parameter")}
	}
	return j
}

// relate makes the job of a story one for a node, a child, or one with children:
// pin=a else=fail, with or without select; part=a, shard=1 parameter=north;
// children=(a,b), or children for one that gets them later.
func (s *story) relate(t *testing.T, d *datadriven.TestData) {
	if d.HasArg("pin") || d.HasArg("select") {
		s.job.Pin = scanPin(t, d)
	}
	if d.HasArg("part") {
		s.job.Parent = &Parent{ID: "mail.0", Created: storyStart, Part: arg(t, d, "part", "")}
	}
	if d.HasArg("shard") {
		s.job.Parent = &Parent{ID: "mail.0", Created: storyStart, Part: arg(t, d, "shard", "")}
		s.job.Parent.Shard = &Shard{Index: arg(t, d, "shard", 0), Total: 2, Parameter: arg(t, d, "parameter", "")}
	}
	if d.HasArg("children") {
		s.job.Fan = &Fan{OnLost: Else(arg(t, d, "on-lost", "fail")), Done: GoalAll}
		s.job.Fan.Shares = scanShares(d)
		s.job.Fan.Total = len(s.job.Fan.Shares)
		if s.job.State == Pending {
			s.job.State = Waiting
		}
	}
}

func scanPin(t *testing.T, d *datadriven.TestData) *Pin {
	p := &Pin{Node: arg(t, d, "pin", ""), Incarnation: arg(t, d, "life", uint64(1)), Else: Else(arg(t, d, "else", "wait"))}
	if p.Node == "" {
		p.Incarnation = 0
	}
	if label := arg(t, d, "select", ""); label != "" {
		p.Rule = &Rule{Select: map[string]string{"disk": label}}
	}
	return p
}

func scanShares(d *datadriven.TestData) []Share {
	var shares []Share
	list, _ := d.Arg("children")
	for i, node := range list.Vals {
		shares = append(shares, Share{Node: node, Incarnation: uint64(i) + 1})
	}
	return shares
}

// ruling reads what somebody says of the place and the children of a job.
func (s *story) ruling(t *testing.T, d *datadriven.TestData) Event {
	switch d.Cmd {
	case "place":
		if d.HasArg("anywhere") {
			return Placed{At: s.now}
		}
		return Placed{At: s.now, Pin: scanPin(t, d)}
	case "desert":
		return Deserted{At: s.now}
	case "admit":
		return Admitted{At: s.now}
	case "decline":
		return Declined{At: s.now, Code: arg(t, d, "code", ""), Why: d.Input}
	case "dispatch":
		shares := scanShares(d)
		if size := arg(t, d, "blob", 0); size > 0 {
			return Dispatched{At: s.now, Blob: &Blob{Name: "mail.1.s", Size: size}, Total: arg(t, d, "total", 0)}
		}
		return Dispatched{At: s.now, Shares: shares, Total: len(shares)}
	case "conclude":
		tally := Tally{Succeeded: arg(t, d, "succeeded", 0), Failed: arg(t, d, "failed", 0), Lost: arg(t, d, "lost", 0)}
		if missed, ok := d.Arg("missed"); ok {
			tally.Missed = missed.Vals
		}
		if d.Input != "" {
			return Concluded{At: s.now, Tally: tally, Error: &Error{Message: d.Input}}
		}
		return Concluded{At: s.now, Tally: tally}
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return nil
}

// tellFamily prints where a job is to run, and who its relatives are.
func tellFamily(j Job) string {
	var b strings.Builder
	if p := j.Pin; p != nil {
		fmt.Fprintf(&b, "  for %s", tellNode(p.Node, p.Incarnation))
		if p.Rule != nil {
			fmt.Fprintf(&b, ", or any with %v", p.Rule.Select)
		}
		fmt.Fprintf(&b, "; otherwise: %s\n", p.Else)
	}
	if p := j.Parent; p != nil {
		fmt.Fprintf(&b, "  part %s of %s", p.Part, p.ID)
		if p.Shard != nil {
			fmt.Fprintf(&b, ": shard %d of %d %s", p.Shard.Index, p.Shard.Total, p.Shard.Parameter)
		}
		b.WriteString("\n")
	}
	if f := j.Fan; f != nil {
		fmt.Fprintf(&b, "  %d children:", f.Total)
		for _, share := range f.Shares {
			fmt.Fprintf(&b, " %s", tellNode(share.Node, share.Incarnation))
		}
		if f.SharesBlob != nil {
			fmt.Fprintf(&b, " as %s has them", f.SharesBlob.Name)
		}
		b.WriteString("\n")
		if sum := f.Tally; sum.Succeeded+sum.Failed+sum.Lost > 0 {
			fmt.Fprintf(&b, "  %d succeeded, %d failed, %d lost %v\n", sum.Succeeded, sum.Failed, sum.Lost, sum.Missed)
		}
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

func tellNode(node string, incarnation uint64) string {
	if node == "" {
		return "nobody yet"
	}
	return fmt.Sprintf("%s/%d", node, incarnation)
}

func TestParentIsOneLife(t *testing.T) {
	t.Parallel()
	j := newFans()[0]
	later := j
	later.Created = j.Created.Add(time.Nanosecond)
	other := j
	other.ID = "mail.2"
	p := Parent{ID: j.ID, Created: j.Created.In(time.FixedZone("far", 3600))}
	for job, want := range map[*Job]bool{&j: true, &later: false, &other: false} {
		if got := p.Is(*job); got != want {
			t.Errorf("%+v is %s of %v: got %t, want %t", p, job.ID, job.Created, got, want)
		}
	}
}
