package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// Every file directly in testdata is one or more stories about a job. Accept
// what they print with -rewrite.
func TestStories(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() {
			continue // what fuzzing and rapid found
		}
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			s := &story{}
			datadriven.RunTest(t, filepath.Join("testdata", f.Name()), s.step)
		})
	}
}

// story is the job that a file is about, as it would be stored: every event
// that is accepted makes one revision, and every command takes a second.
type story struct {
	job      Job
	revision uint64
	tokens   int // tokens given so far: t1, t2, …
	now      time.Time
}

var storyStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *story) step(t *testing.T, d *datadriven.TestData) string {
	s.now = s.now.Add(time.Second)
	switch d.Cmd {
	case "submit", "record":
		return s.begin(t, d)
	case "deliver":
		return string(s.job.Deliver(delivery(t, d)))
	case "judge":
		return string(s.job.Judge(delivery(t, d), Answer(arg(t, d, "answer", ""))))
	case "repeat":
		return s.repeat(t, d)
	}
	return s.apply(s.event(t, d))
}

// begin stores a new job: that of submit, or the JSON of record.
func (s *story) begin(t *testing.T, d *datadriven.TestData) string {
	*s = story{now: storyStart, revision: 1}
	s.job = Job{ID: "mail.1", Kind: "mail.send", State: Pending, Created: s.now, MaxAttempts: arg(t, d, "max", 0)}
	if d.Cmd == "record" {
		s.job = Job{}
		if err := json.Unmarshal([]byte(d.Input), &s.job); err != nil {
			return err.Error()
		}
	}
	if err := s.job.Validate(); err != nil {
		return err.Error()
	}
	return s.tell()
}

// repeat claims the job and hands it back n times.
func (s *story) repeat(t *testing.T, d *datadriven.TestData) string {
	for range arg(t, d, "n", 1) {
		claim := Claimed{s.claimant("a", 1, 1, 0)}
		s.apply(claim)
		s.now = s.now.Add(time.Second)
		s.apply(Returned{Hold: Hold{Token: claim.Lease.Token, At: s.now}, Reason: "not yet"})
		s.now = s.now.Add(time.Second)
	}
	return s.tell()
}

func (s *story) event(t *testing.T, d *datadriven.TestData) Event {
	hold := Hold{Token: arg(t, d, "token", ""), At: s.now}
	switch d.Cmd {
	case "claim":
		return Claimed{s.scanClaimant(t, d)}
	case "reclaim":
		return Reclaimed{s.scanClaimant(t, d)}
	case "take-over":
		return TakenOver{Claimant: s.scanClaimant(t, d), LostClaim: d.HasArg("lost-claim")}
	case "finish":
		done := Done{Hold: hold}
		if d.Input != "" {
			done.Result = json.RawMessage(d.Input)
		}
		return done
	case "fail":
		return Erred{Hold: hold, Error: Error{Message: d.Input}, Final: d.HasArg("final")}
	case "hand-back":
		return Returned{Hold: hold, Reason: d.Input}
	case "cancel":
		return Stopped{Cause: d.Input, At: s.now}
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return nil
}

func (s *story) apply(ev Event) string {
	next, err := s.job.Apply(ev)
	if err != nil {
		return err.Error()
	}
	if err := next.Validate(); err != nil {
		return err.Error()
	}
	s.job, s.revision = next, s.revision+1
	return s.tell()
}

func (s *story) scanClaimant(t *testing.T, d *datadriven.TestData) Claimant {
	return s.claimant(arg(t, d, "node", ""), arg(t, d, "incarnation", uint64(1)), arg(t, d, "driver", uint64(1)), arg(t, d, "max", 0))
}

// claimant is a node that replaces the record as it is, under the next token.
func (s *story) claimant(node string, incarnation, driver uint64, limit int) Claimant {
	s.tokens++
	return Claimant{
		Lease: Lease{
			Node: node, Incarnation: incarnation, Token: fmt.Sprintf("t%d", s.tokens),
			Driver: Driver{Stream: "work", Sequence: driver},
		},
		Fence: s.revision, At: s.now, MaxAttempts: limit,
	}
}

func delivery(t *testing.T, d *datadriven.TestData) Delivery {
	return Delivery{
		Driver:      Driver{Stream: "work", Sequence: arg(t, d, "driver", uint64(1))},
		Node:        arg(t, d, "node", ""),
		Incarnation: arg(t, d, "incarnation", uint64(1)),
		Runs:        d.HasArg("runs"),
	}
}

// arg returns an argument of a command, or otherwise.
func arg[T any](t *testing.T, d *datadriven.TestData, key string, otherwise T) T {
	d.MaybeScanArgs(t, key, &otherwise)
	return otherwise
}

// tell prints the job as it is stored.
func (s *story) tell() string {
	var b strings.Builder
	j := s.job
	fmt.Fprintf(&b, "%s attempt=%d failures=%d/%d fence=%d revision=%d\n", j.State, j.Attempt, j.Failures, j.Limit(), j.Fence, s.revision)
	if l := j.Lease; l != nil {
		fmt.Fprintf(&b, "  lease: %s/%d under %s, driven by %s %d\n", l.Node, l.Incarnation, l.Token, l.Driver.Stream, l.Driver.Sequence)
	}
	if c := j.Cancel; c != nil {
		fmt.Fprintf(&b, "  cancel: %s, at %s\n", c.Cause, second(c.At))
	}
	if j.Result != nil {
		fmt.Fprintf(&b, "  result: %s\n", j.Result)
	}
	if j.Error != nil {
		fmt.Fprintf(&b, "  error: %s\n", tellError(*j.Error))
	}
	if owes := fmt.Sprint(j.Owes()); owes != "[]" {
		fmt.Fprintf(&b, "  owes: %s\n", strings.Trim(owes, "[]"))
	}
	for _, a := range j.Attempts {
		fmt.Fprintf(&b, "  %s\n", tellAttempt(a))
	}
	if !j.Finished.IsZero() {
		fmt.Fprintf(&b, "  finished at %s\n", second(j.Finished))
	}
	return b.String()
}

func tellAttempt(a Attempt) string {
	text := fmt.Sprintf("%d. on %s at %s", a.Number, a.Node, second(a.Started))
	if a.Outcome == "" {
		return text
	}
	text += fmt.Sprintf(", %s at %s under %s", a.Outcome, second(a.Ended), a.Token)
	if a.Error != nil {
		text += ": " + tellError(*a.Error)
	}
	return text
}

func tellError(e Error) string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ", " + e.Message
}

// second tells a time as what has passed since the story began.
func second(at time.Time) string { return at.Sub(storyStart).String() }
