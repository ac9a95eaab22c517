package machine

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// The deliveries and events that the laws are tried on, drawn or all of them.

var answers = []Answer{Silent, Runs, Denies, Unaware, Dead}

// everyDelivery returns the deliveries that differ for j.
func everyDelivery(j Job) []Delivery {
	mine := Lease{Node: "a", Incarnation: 1, Driver: Driver{Stream: "work", Sequence: 1}}
	if j.Lease != nil {
		mine = *j.Lease
	}
	var all []Delivery
	for _, driver := range []Driver{mine.Driver, {Stream: "work", Sequence: mine.Driver.Sequence + 1}} {
		for _, node := range []string{mine.Node, mine.Node + "2"} {
			for _, incarnation := range []uint64{mine.Incarnation, mine.Incarnation + 1} {
				for _, runs := range []bool{false, true} {
					all = append(all, Delivery{Driver: driver, Node: node, Incarnation: incarnation, Runs: runs})
				}
			}
		}
	}
	return all
}

// everyEvent returns the events that differ for j, as step of its life.
func everyEvent(j Job, step int) []Event {
	at := storyStart.Add(time.Duration(step) * time.Second)
	var all []Event
	all = append(all,
		Claimed{claimant(step, "a", 1)}, Reclaimed{claimant(step, "a", 1)},
		TakenOver{Claimant: claimant(step, "b", 1)}, TakenOver{Claimant: claimant(step, "b", 1), LostClaim: true},
		Stopped{Cause: "asked by ada", At: at})
	for _, token := range tokens(j) {
		hold := Hold{Token: token, At: at}
		all = append(all,
			Done{Hold: hold, Result: json.RawMessage(`1`)}, Returned{Hold: hold, Reason: "not yet"},
			Erred{Hold: hold, Error: Error{Message: "disk full"}},
			Erred{Hold: hold, Error: Error{Message: "no such address"}, Final: true})
	}
	return all
}

// tokens returns the one that holds j, those of its attempts, and others.
func tokens(j Job) []string {
	all := []string{"nobody's", ""}
	if j.Lease != nil {
		all = append(all, j.Lease.Token)
	}
	for _, a := range j.Attempts {
		all = append(all, a.Token)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// claimant is a node that replaces the revision of a step.
func claimant(step int, node string, incarnation uint64) Claimant {
	return Claimant{
		Lease: Lease{
			Node: node, Incarnation: incarnation, Token: fmt.Sprintf("t%d", step),
			Driver: Driver{Stream: "work", Sequence: uint64(step)},
		},
		Fence: uint64(step) + 1,
		At:    storyStart.Add(time.Duration(step) * time.Second),
	}
}

var someJSON = rapid.SampledFrom([]json.RawMessage{
	nil, json.RawMessage(`null`), json.RawMessage(`{"to":"ada","n":1.50}`), json.RawMessage(`[ 1, "<b>" ]`), json.RawMessage(`""`),
})

// earlier is more attempts than drawJob gives a job, and than a record keeps.
const earlier = 15

// drawJob draws a pending job, new or after attempts that were handed back.
func drawJob(t *rapid.T) Job {
	j := Job{
		ID: "mail.1", Kind: "mail.send", State: Pending,
		MaxAttempts: rapid.IntRange(0, 7).Draw(t, "max"),
		Input:       someJSON.Draw(t, "input"),
		Created:     storyStart,
		Trace: rapid.OneOf(
			rapid.Just(map[string]string(nil)),
			rapid.MapOfN(rapid.StringN(1, 5, -1), rapid.String(), 1, 2),
		).Draw(t, "trace"),
	}
	return handBack(t, j, rapid.OneOf(rapid.Just(0), rapid.IntRange(0, earlier-1)).Draw(t, "earlier"))
}

// handBack returns a pending job after n more attempts, at steps 0 to n-1.
func handBack(t rapid.TB, j Job, n int) Job {
	t.Helper()
	for step := range n {
		c := claimant(step, "a", 1)
		j = must(t, j, Claimed{c})
		j = must(t, j, Returned{Hold: Hold{Token: c.Lease.Token, At: c.At}, Reason: "not yet"})
	}
	return j
}

func must(t rapid.TB, j Job, ev Event) Job {
	t.Helper()
	next, err := j.Apply(ev)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// drawEvent draws an event for step of the life of j since [drawJob], mostly
// one that it allows.
func drawEvent(t *rapid.T, j Job, step int) Event {
	c := claimant(earlier+step, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node"), rapid.Uint64Range(1, 3).Draw(t, "incarnation"))
	c.MaxAttempts = rapid.IntRange(0, 7).Draw(t, "definition")
	hold := Hold{At: c.At}
	if j.Lease != nil && rapid.IntRange(0, 3).Draw(t, "holder") > 0 {
		hold.Token = j.Lease.Token
	} else {
		hold.Token = rapid.SampledFrom(tokens(j)).Draw(t, "token")
	}
	message := rapid.String().Draw(t, "message")
	return rapid.SampledFrom([]Event{
		Claimed{c},
		Claimed{c},
		Claimed{c},
		Reclaimed{c},
		TakenOver{Claimant: c},
		TakenOver{Claimant: c, LostClaim: true},
		Done{Hold: hold, Result: someJSON.Draw(t, "result")},
		Erred{Hold: hold, Error: Error{Message: message, Code: "panic", Stack: message}},
		Erred{Hold: hold, Error: Error{Message: message}, Final: rapid.IntRange(0, 3).Draw(t, "final") == 0},
		Returned{Hold: hold, Reason: message},
		Returned{Hold: hold, Reason: message},
		Returned{Hold: hold, Reason: message},
		Stopped{Cause: message, At: c.At},
	}).Draw(t, "event")
}
