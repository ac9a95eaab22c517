package machine

import (
	"encoding/json"
	"time"

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
		Deserted{At: at}, Placed{At: at},
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
