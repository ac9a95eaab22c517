package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
// that is accepted makes one revision. Every command takes a second, or happens
// at=<what has passed since the job was submitted>.
type story struct {
	job      Job
	revision uint64
	tokens   int // tokens given so far: t1, t2, …
	now      time.Time
}

var storyStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *story) step(t *testing.T, d *datadriven.TestData) string {
	s.now = moment(t, d, "at", s.now.Add(time.Second))
	switch d.Cmd {
	case "submit", "record":
		return s.begin(t, d)
	case "deliver":
		return string(s.job.Deliver(s.delivery(t, d)))
	case "judge":
		return string(s.job.Judge(s.delivery(t, d), Answer(arg(t, d, "answer", ""))))
	case "repeat":
		return s.repeat(t, d)
	}
	return s.apply(s.event(t, d))
}

// begin stores a new job: that of submit, or the JSON of record.
func (s *story) begin(t *testing.T, d *datadriven.TestData) string {
	*s = story{now: storyStart, revision: 1}
	s.job = Job{
		ID: "mail.1", Kind: "mail.send", State: Pending, Created: s.now, MaxAttempts: arg(t, d, "max", 0),
		StartBy: moment(t, d, "start-by", time.Time{}), Deadline: moment(t, d, "deadline", time.Time{}),
	}
	if d.HasArg("delay") {
		s.job.State, s.job.Wait, s.job.Due = Scheduled, WaitDelay, moment(t, d, "delay", time.Time{})
	}
	if size := arg(t, d, "blob", 0); size > 0 {
		s.job.InputBlob, s.job.Expires = &Blob{Name: "mail.1.b1", Size: size}, storyStart.Add(24*time.Hour)
	}
	s.relate(t, d)
	s.tick(t, d)
	if d.HasArg("unique") {
		s.job.Unique = &Unique{Key: "k", Scope: Scope(arg(t, d, "unique", ""))}
	}
	if d.HasArg("retry") {
		retry := scanRetry(t, d)
		s.job.Retry = &retry
	}
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
	case "orphan":
		return Orphaned{At: s.now, LostClaim: d.HasArg("lost-claim")}
	case "report":
		hold.Report = s.scanReport(t, d)
		return Reported{hold}
	case "finish":
		done := Done{Hold: hold}
		if d.Input != "" {
			done.Result = json.RawMessage(d.Input)
		}
		if size := arg(t, d, "blob", 0); size > 0 {
			done.Blob = &Blob{Name: s.job.ID + ".b2", Size: size}
		}
		return done
	case "fail":
		if d.HasArg("done") {
			hold.Report = s.scanReport(t, d)
		}
		return Erred{
			Hold: hold, Error: Error{Message: d.Input}, Final: d.HasArg("final"),
			After: span(t, arg(t, d, "after", "0s")), Retry: scanRetry(t, d), Random: random(t, d),
		}
	case "hand-back":
		return Returned{Hold: hold, Reason: d.Input, Due: moment(t, d, "due", time.Time{})}
	case "postpone":
		return Postponed{At: s.now, Random: random(t, d), LostClaim: d.HasArg("lost-claim")}
	case "cancel":
		return Stopped{Cause: d.Input, At: s.now}
	case "time-out":
		return TimedOut{Purpose: Purpose(arg(t, d, "purpose", "")), At: s.now}
	case "redrive":
		return Redriven{At: s.now}
	case "remove":
		return Removed{At: s.now}
	}
	return s.ruling(t, d)
}

// scanReport reads done=3 total=10 details=(...).
func (s *story) scanReport(t *testing.T, d *datadriven.TestData) *Report {
	r := &Report{Details: json.RawMessage(arg(t, d, "details", ""))}
	if d.HasArg("done") {
		r.Progress = &Progress{Done: arg(t, d, "done", int64(0)), Total: arg(t, d, "total", int64(0)), Note: d.Input, At: s.now}
	}
	return r
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

func (s *story) delivery(t *testing.T, d *datadriven.TestData) Delivery {
	return Delivery{
		Due:         moment(t, d, "due", time.Time{}),
		Now:         s.now,
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

// moment returns an argument that tells what has passed since the story began.
func moment(t *testing.T, d *datadriven.TestData, key string, otherwise time.Time) time.Time {
	if !d.HasArg(key) {
		return otherwise
	}
	return storyStart.Add(span(t, arg(t, d, key, "")))
}

// random returns the random number of a command. In the middle there is no
// jitter.
func random(t *testing.T, d *datadriven.TestData) float64 {
	return number(t, arg(t, d, "random", "0.5"))
}

// scanRetry returns the policy of a command: retry=(1s,1m) is a list of delays,
// retry=(delay=1s,factor=3,longest=1h,jitter=0.5,age=1h) the rest.
func scanRetry(t *testing.T, d *datadriven.TestData) Retry {
	var r Retry
	arg, _ := d.Arg("retry")
	for _, v := range arg.Vals {
		switch key, value, _ := strings.Cut(v, "="); key {
		case "delay":
			r.Delay = span(t, value)
		case "factor":
			r.Factor = number(t, value)
		case "longest":
			r.MaxDelay = span(t, value)
		case "jitter":
			r.Jitter = number(t, value)
		case "age":
			r.MaxAge = span(t, value)
		default:
			r.Delays = append(r.Delays, span(t, v))
		}
	}
	return r
}

func span(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
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
		overdue := ""
		if c.Overdue {
			overdue = ", overdue"
		}
		fmt.Fprintf(&b, "  cancel: %s, at %s%s\n", c.Cause, second(c.At), overdue)
	}
	b.WriteString(tellFamily(j))
	b.WriteString(tellTick(j))
	b.WriteString(tellTimes(j))
	if p := j.Progress; p != nil {
		fmt.Fprintf(&b, "  progress: %d of %d, %s, at %s\n", p.Done, p.Total, p.Note, second(p.At))
	}
	if len(j.Details) > 0 {
		fmt.Fprintf(&b, "  details: %s\n", j.Details)
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

// tellTimes prints what is to happen when.
func tellTimes(j Job) string {
	var b strings.Builder
	if !j.Due.IsZero() {
		fmt.Fprintf(&b, "  due: at %s %s\n", second(j.Due), j.Wait)
	}
	if !j.StartBy.IsZero() {
		fmt.Fprintf(&b, "  to start by %s\n", second(j.StartBy))
	}
	if !j.Deadline.IsZero() {
		fmt.Fprintf(&b, "  to end by %s\n", second(j.Deadline))
	}
	timers := ""
	for _, timer := range j.Timers() {
		timers += fmt.Sprintf(" %s at %s", timer.Purpose, second(timer.At))
	}
	if timers != "" {
		fmt.Fprintf(&b, "  timers:%s\n", timers)
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
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
