package oracle_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// Stories are runs in short, and what the judge says of them. Times are seconds.
//
//	2.0 -    call submit work.a created
//	2.2 w1#1 start work.a attempt=1 fence=10 run=x
//	2.8 w1#1 end work.a attempt=1 run=x succeeded
//	job work.a succeeded attempt=1 run=x rev=12 1:w1:2.1-2.8:succeeded
//
// What setup says goes before each story that follows.
func TestStories(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		t.Parallel()
		setup := ""
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "setup" {
				setup = d.Input
				return ""
			}
			run := tell(t, setup+"\n"+d.Input)
			for _, arg := range d.CmdArgs {
				if arg.Key == "servers" {
					d.ScanArgs(t, "servers", &run.Servers)
				}
			}
			switch d.Cmd {
			case "judge":
				var said []string
				for _, v := range run.Check() {
					said = append(said, strings.Join(strings.Fields(v.Invariant+" "+v.Job), " ")+": "+v.Says)
				}
				if len(said) == 0 {
					return "nothing\n"
				}
				return strings.Join(said, "\n") + "\n"
			case "print":
				var text strings.Builder
				for _, v := range run.Check() {
					text.WriteString(v.String())
				}
				return text.String()
			case "figures":
				return run.Figures().String()
			case "timeline":
				return run.Timeline(d.CmdArgs[0].Key)
			case "biography":
				return run.Biography(d.CmdArgs[0].Key)
			}
			d.Fatalf(t, "no such command: %s", d.Cmd)
			return ""
		})
	})
}

// began is when all stories begin.
var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// tell reads a story.
func tell(t *testing.T, text string) oracle.Run {
	t.Helper()
	run := oracle.Run{Test: t.Name()}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "job":
			run.Jobs = append(run.Jobs, recordOf(t, words[1:]))
		default:
			run.Ledger = append(run.Ledger, entryOf(t, words))
		}
	}
	return run
}

// moment is a time in a story.
func moment(t *testing.T, seconds string) time.Time {
	t.Helper()
	return began.Add(time.Duration(number[float64](t, seconds) * float64(time.Second)))
}

// number is a number in a story.
func number[N int | int64 | uint64 | float64](t *testing.T, text string) N {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("a number: %v", err)
	}
	return N(n)
}

// entryOf reads a line of the ledger: when, who, what, and details.
func entryOf(t *testing.T, words []string) ledger.Entry {
	t.Helper()
	e := ledger.Entry{At: moment(t, words[0]).UnixNano(), What: ledger.What(words[2])}
	if words[1] != "-" {
		e.Process = words[1]
		e.Node, _, _ = strings.Cut(e.Process, "#")
	}
	if e.What == ledger.Call || e.What == ledger.Read {
		e.Call = e.At - int64(10*time.Millisecond)
	}
	var bare []string
	for _, word := range words[3:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			bare = append(bare, word)
			continue
		}
		detail(t, &e, key, value)
	}
	for place, word := range bare {
		placed(t, &e, place, word)
	}
	return e
}

// detail fills in what a line says by name.
func detail(t *testing.T, e *ledger.Entry, key, value string) {
	t.Helper()
	switch key {
	case "role":
		e.Role = value
	case "node":
		e.Node = value
	case "queue":
		e.Queue = value
	case "count":
		e.Count = number[int](t, value)
	case "parent":
		e.Parent = value
	case "part":
		e.Part = value
	case "attempt":
		e.Attempt = number[int](t, value)
	case "fence":
		e.Fence = number[uint64](t, value)
	case "run":
		e.Nonce = value
	case "cause":
		e.Cause = strings.ReplaceAll(value, "_", " ")
	case "rev":
		e.Revision = number[uint64](t, value)
	case "epoch":
		e.Epoch = number[uint64](t, value)
	case "took":
		e.Call = e.At - int64(moment(t, value).Sub(began))
	case "schedule":
		e.Schedule = value
	case "every", "most":
		if e.Plan == nil {
			e.Plan = &ledger.Plan{}
		}
		if key == "most" {
			e.Plan.Most = number[int](t, value)
		} else {
			e.Plan.Every = moment(t, value).Sub(began)
		}
	case "due":
		e.Due = moment(t, value).UnixNano()
	case "note":
		e.Note = strings.ReplaceAll(value, "_", " ")
	default:
		t.Fatalf("no such detail: %s", key)
	}
}

// placed fills in what a line says by its place.
func placed(t *testing.T, e *ledger.Entry, place int, word string) {
	t.Helper()
	switch what := fmt.Sprint(e.What, place); what {
	case "start0", "end0", "read0":
		e.Job = word
	case "end1", "call2":
		e.Outcome = word
	case "read1":
		e.State = word
	case "call0", "fault0", "heal0":
		e.Verb = word
	case "fault1", "heal1":
		e.Peer = word
	case "owner0":
		e.Node = word
	case "note0":
		e.Note = word
	case "call1":
		switch {
		case e.Verb == ledger.Apply || e.Verb == ledger.Delete:
			e.Schedule = word
		case e.Schedule != "": // which is not said by its place
			e.Outcome = word
		case e.Verb == ledger.Pause || e.Verb == ledger.Resume || e.Verb == ledger.Limit:
			e.Queue = word
		case e.Verb == ledger.Drain || e.Verb == ledger.Undrain:
			e.Node = word
		default:
			e.Job = word
		}
	default:
		t.Fatalf("what is %s at place %d of %s?", word, place, e.What)
	}
}

// relation fills in what a job has to do with nodes and with other jobs. Parts are
// counted as succeeded,failed,lost,cancelled,unstarted.
func relation(t *testing.T, j *oracle.Job, key, value string) {
	t.Helper()
	if j.Children == nil && slices.Contains([]string{"total", "shards", "onlost", "done", "counts", "parallel"}, key) {
		j.Children = &oracle.Children{}
	}
	switch key {
	case "tick":
		j.Schedule, j.Due, j.Created = "s", moment(t, value), moment(t, value)
		j.Tick = &oracle.Tick{By: "clock", Count: 1}
	case "number":
		j.Tick.Number = number[int64](t, value)
	case "code":
		j.Error = &oracle.Error{Code: value}
	case "created":
		j.Created = moment(t, value)
	case "deadline":
		j.Deadline = moment(t, value)
	case "pin":
		node, orElse, _ := strings.Cut(value, ":")
		j.Pin = &oracle.Pin{Node: node, Else: orElse}
	case "parent":
		j.Parent = value
	case "part":
		j.Part = value
	case "total", "shards":
		j.Children.Total, j.Children.Shards = number[int](t, value), key == "shards"
	case "onlost":
		j.Children.OnLost = value
	case "done":
		j.Children.Done = value
	case "parallel":
		j.Children.MaxParallel = number[int](t, value)
	case "counts":
		c := j.Children
		for i, text := range strings.Split(value, ",") {
			*[]*int{&c.Succeeded, &c.Failed, &c.Lost, &c.Cancelled, &c.Unstarted}[i] = number[int](t, text)
		}
	default:
		t.Fatalf("no such detail of a job: %s", key)
	}
}

// recordOf reads what the list has of a job: ID, state, details, and attempts as
// number:node:from-to:outcome.
func recordOf(t *testing.T, words []string) oracle.Job {
	t.Helper()
	j := oracle.Job{ID: words[0], State: words[1]}
	for _, word := range words[2:] {
		if key, value, ok := strings.Cut(word, "="); ok {
			switch key {
			case "attempt":
				j.Attempt = number[int](t, value)
			case "rev":
				j.Revision = number[uint64](t, value)
			case "failures":
				j.Failures = number[int](t, value)
			case "run":
				j.Result = []byte(fmt.Sprintf(`{"nonce":%q}`, value))
			case "finished":
				j.Finished = moment(t, value)
			case "due":
				j.Due = moment(t, value)
			default:
				relation(t, &j, key, value)
			}
			continue
		}
		part := strings.Split(word, ":")
		from, to, ended := strings.Cut(part[2], "-")
		a := oracle.Attempt{Number: number[int](t, part[0]), Node: part[1], Started: moment(t, from)}
		if ended {
			a.Ended, a.Outcome = moment(t, to), part[3]
		}
		j.Attempts = append(j.Attempts, a)
	}
	if n := len(j.Attempts); n > 0 {
		last := j.Attempts[n-1]
		j.Attempt = max(j.Attempt, last.Number)
		if j.Finished.IsZero() {
			j.Finished = last.Ended
		}
	}
	return j
}
