package machine

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// The deliveries and events that the laws are tried on, drawn or all of them.

var answers = []Answer{Silent, Runs, Denies, Unaware, Dead}

// everyDelivery returns the deliveries that differ for j.
func everyDelivery(j Job) []Delivery {
	times := []Delivery{{}}
	if j.State.Delayed() {
		early := j.Due.Add(-time.Nanosecond)
		times = []Delivery{
			{Now: early},
			{Now: early, Due: j.Due},
			{Now: early, Due: j.Due.Add(-time.Millisecond)},
			{Now: early, Due: j.Due.Add(time.Millisecond)},
			{Now: j.Due},
			{Now: j.Due.Add(time.Hour)},
		}
	}
	mine := Lease{Node: home(j), Incarnation: 1, Driver: Driver{Stream: "work", Sequence: 1}}
	if j.Lease != nil {
		mine = *j.Lease
	}
	var all []Delivery
	for _, driver := range []Driver{mine.Driver, {Stream: "work", Sequence: mine.Driver.Sequence + 1}} {
		for _, node := range []string{mine.Node, mine.Node + "2"} {
			for _, incarnation := range []uint64{mine.Incarnation, mine.Incarnation + 1} {
				for _, d := range times {
					d.Driver, d.Node, d.Incarnation = driver, node, incarnation
					all = append(all, d)
					d.Runs = true
					all = append(all, d)
				}
			}
		}
	}
	return all
}

// everyEvent returns the events that differ for j, as step of its life.
func everyEvent(j Job, step int) []Event {
	at := stepTime(step)
	var all []Event
	all = append(all,
		Claimed{claimant(step, "a", 1)}, Reclaimed{claimant(step, "a", 1)},
		TakenOver{Claimant: claimant(step, "b", 1)}, TakenOver{Claimant: claimant(step, "b", 1), LostClaim: true},
		Postponed{At: at}, Postponed{At: at, LostClaim: true},
		Orphaned{At: at}, Orphaned{At: at, LostClaim: true},
		Stopped{Cause: "asked by ada", At: at},
		TimedOut{Purpose: QueuedTimeout, At: at}, TimedOut{Purpose: Deadline, At: at},
		Redriven{At: at}, Removed{At: at})
	all = append(all, Admitted{At: at}, Declined{At: at, Code: SkipOverlap, Why: "another one goes on"})
	all = append(all, everyRuling(j, at)...)
	for _, token := range tokens(j) {
		hold := Hold{Token: token, At: at}
		all = append(all,
			Reported{Hold{Token: token, At: at, Report: &Report{Progress: &Progress{Done: int64(step), At: at}}}},
			Done{Hold: hold, Result: json.RawMessage(`1`)}, Returned{Hold: hold, Reason: "not yet"},
			Returned{Hold: hold, Reason: "later", Due: at.Add(time.Minute)},
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
		At:    stepTime(step),
	}
}

// stepTime is when the events of a step happen: not at a whole millisecond.
func stepTime(step int) time.Time {
	return storyStart.Add(time.Duration(step) * (time.Second + 137*time.Nanosecond))
}

// newJobs returns jobs for any worker as they are submitted, one with and one
// without a delay and limits.
func newJobs(limit int) []Job {
	j := Job{ID: "mail.1", Kind: "mail.send", State: Pending, MaxAttempts: limit, Created: storyStart}
	later := j
	later.State, later.Wait, later.Due = Scheduled, WaitDelay, storyStart.Add(time.Second)
	later.StartBy, later.Deadline = storyStart.Add(time.Second), storyStart.Add(2*time.Second)
	later.Retry = &Retry{Delay: time.Millisecond}
	return []Job{j, later}
}

// at is when ev happens.
func at(ev Event) time.Time {
	switch ev := ev.(type) {
	case Claimed:
		return ev.At
	case Reclaimed:
		return ev.At
	case TakenOver:
		return ev.At
	case Done:
		return ev.At
	case Erred:
		return ev.At
	case Returned:
		return ev.At
	case Reported:
		return ev.At
	case Orphaned:
		return ev.At
	case Postponed:
		return ev.At
	case Stopped:
		return ev.At
	case TimedOut:
		return ev.At
	case Redriven:
		return ev.At
	case Removed:
		return ev.At
	case Placed:
		return ev.At
	case Deserted:
		return ev.At
	case Dispatched:
		return ev.At
	case Concluded:
		return ev.At
	case Admitted:
		return ev.At
	case Declined:
		return ev.At
	}
	panic("the event has no time")
}

// someRetry draws policies as they are submitted.
var someRetry = rapid.Custom(func(t *rapid.T) Retry {
	spans := rapid.SampledFrom([]time.Duration{0, time.Nanosecond, 1500 * time.Microsecond, 3 * time.Second, 40 * time.Second, math.MaxInt64})
	return Retry{
		Delay:    spans.Draw(t, "delay"),
		Factor:   rapid.OneOf(rapid.Just(0.), rapid.Float64Range(1, 1e300)).Draw(t, "factor"),
		MaxDelay: spans.Draw(t, "longest"),
		Delays:   rapid.OneOf(rapid.Just[[]time.Duration](nil), rapid.SliceOfN(spans, 1, 3)).Draw(t, "delays"),
		Jitter:   rapid.OneOf(rapid.Just(0.), rapid.Float64Range(-1, 1)).Draw(t, "jitter"),
		MaxAge:   rapid.OneOf(rapid.Just(time.Duration(0)), spans).Draw(t, "age"),
	}
})

// someTime draws a time in a life, or none.
var someTime = rapid.Custom(func(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "none") {
		return time.Time{}
	}
	return storyStart.Add(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "ms")) * time.Millisecond)
})

var someJSON = rapid.SampledFrom([]json.RawMessage{
	nil, json.RawMessage(`null`), json.RawMessage(`{"to":"ada","n":1.50}`), json.RawMessage(`[ 1, "<b>" ]`), json.RawMessage(`""`),
})

var someBlob = rapid.Ptr(rapid.Custom(func(t *rapid.T) Blob {
	return Blob{Name: rapid.StringMatching(`mail\.1\.[a-z]{1,4}`).Draw(t, "name"), Size: rapid.IntRange(0, 1<<30).Draw(t, "size")}
}), true)

var someUnique = rapid.Custom(func(t *rapid.T) Unique {
	return Unique{
		Key:   rapid.String().Draw(t, "key"),
		Scope: rapid.SampledFrom([]Scope{WhilePending, WhileActive, WithinPeriod}).Draw(t, "scope"),
		Until: someTime.Draw(t, "until"),
	}
})

// someReport draws what a handler says of itself.
var someReport = rapid.Custom(func(t *rapid.T) Report {
	var r Report
	if rapid.Bool().Draw(t, "progress") {
		r.Progress = &Progress{Done: rapid.Int64().Draw(t, "done"), Total: rapid.Int64().Draw(t, "total"), Note: rapid.String().Draw(t, "note"), At: storyStart}
	}
	r.Details = someJSON.Draw(t, "details")
	return r
})

var someCauses = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Cause {
	return Cause{
		Message: rapid.String().Draw(t, "message"), Depth: rapid.IntRange(0, 3).Draw(t, "depth"),
		Type: rapid.SampledFrom([]string{"", "disk"}).Draw(t, "type"), Data: someJSON.Draw(t, "data"),
	}
}), 0, 2)

// earlier is more attempts than drawJob gives a job, and than a record keeps.
const earlier = 15

// drawJob draws a job that is new, or pending after attempts that were handed
// back.
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
		Class:     rapid.SampledFrom([]Class{"", High, Low}).Draw(t, "class"),
		InputBlob: someBlob.Draw(t, "input blob"),
		Unique:    rapid.Ptr(someUnique, true).Draw(t, "unique"),
		Expires:   someTime.Draw(t, "expires"), // which the end of a job really sets

		StartBy:  someTime.Draw(t, "start by"),
		Deadline: someTime.Draw(t, "deadline"),
		Retry:    rapid.Ptr(someRetry, true).Draw(t, "retry"),
	}
	if due := someTime.Draw(t, "due"); !due.IsZero() {
		j.State, j.Wait, j.Due = Scheduled, WaitDelay, due
	}
	j = drawTick(t, drawFamily(t, j))
	if j.Fan != nil || j.Homeless() || j.Wait == WaitTurn || j.State.Final() {
		return j
	}
	return handBack(t, j, rapid.OneOf(rapid.Just(0), rapid.IntRange(0, earlier-1)).Draw(t, "earlier"))
}

// handBack returns a pending job after n more attempts, at steps 0 to n-1.
func handBack(t rapid.TB, j Job, n int) Job {
	t.Helper()
	for step := range n {
		c := claimant(step, home(j), 1)
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
	c := claimant(earlier+step, rapid.SampledFrom([]string{home(j), "a", "b"}).Draw(t, "node"), rapid.Uint64Range(1, 3).Draw(t, "incarnation"))
	c.MaxAttempts = rapid.IntRange(0, 7).Draw(t, "definition")
	hold := Hold{At: c.At, Report: rapid.Ptr(someReport, true).Draw(t, "report")}
	if j.Lease != nil && rapid.IntRange(0, 3).Draw(t, "holder") > 0 {
		hold.Token = j.Lease.Token
	} else {
		hold.Token = rapid.SampledFrom(tokens(j)).Draw(t, "token")
	}
	message := rapid.String().Draw(t, "message")
	random := rapid.Float64Range(0, 0.999).Draw(t, "random")
	causes := slices.Clip(someCauses.Draw(t, "causes"))
	if len(causes) == 0 {
		causes = nil // as it is read again
	}
	ruling := rapid.SampledFrom(everyRuling(j, c.At)).Draw(t, "ruling")
	return rapid.SampledFrom([]Event{
		ruling,
		ruling,
		Claimed{c},
		Claimed{c},
		Claimed{c},
		Reclaimed{c},
		TakenOver{Claimant: c},
		TakenOver{Claimant: c, LostClaim: true},
		Reported{hold},
		Done{Hold: hold, Result: someJSON.Draw(t, "result"), Blob: someBlob.Draw(t, "blob")},
		Erred{Hold: hold, Error: Error{Message: message, Code: "panic", Stack: message, Causes: causes}, Retry: someRetry.Draw(t, "policy"), Random: random},
		Erred{
			Hold: hold, Error: Error{Message: message}, Final: rapid.IntRange(0, 3).Draw(t, "final") == 0,
			After: time.Duration(rapid.Int64().Draw(t, "after")), Random: random,
		},
		Returned{Hold: hold, Reason: message},
		Returned{Hold: hold, Reason: message},
		Returned{Hold: hold, Reason: message, Due: someTime.Draw(t, "snooze")},
		Orphaned{At: c.At, LostClaim: rapid.Bool().Draw(t, "lost claim of an orphan")},
		Postponed{At: c.At, Random: random, LostClaim: rapid.Bool().Draw(t, "lost claim")},
		Stopped{Cause: message, At: c.At},
		TimedOut{Purpose: rapid.SampledFrom([]Purpose{Due, Outset, QueuedTimeout, Deadline, Expiry}).Draw(t, "purpose"), At: c.At},
		Redriven{At: c.At},
		Removed{At: c.At},
		Admitted{At: c.At},
		Declined{At: c.At, Code: SkipChanged, Why: message},
	}).Draw(t, "event")
}
