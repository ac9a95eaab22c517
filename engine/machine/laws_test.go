package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// taken is an event that was sent to a job, and what came of it.
type taken struct {
	before Job
	event  Event
	after  Job
	err    error
}

// laws hold for every event, accepted or not, in every life of a job.
var laws = map[string]func(taken) bool{
	"a job that has ended can only be redriven, or be removed, once": func(s taken) bool {
		_, removes := s.event.(Removed)
		afterEnd := removes || redrives(s.event)
		if !s.before.State.Final() {
			return !afterEnd || s.err != nil
		}
		return (s.err == nil) == (afterEnd && s.before.State != Removing)
	},
	"a redrive begins a new life, which remembers the attempts": func(s taken) bool {
		if !redrives(s.event) || s.err != nil {
			return s.after.Redriven.Equal(s.before.Redriven)
		}
		a, again := s.after, []State{Pending}
		if a.Fan != nil {
			again = []State{Waiting}
		}
		if a.Fan != nil && a.Fan.Total == 0 || a.takesTurns() {
			again = []State{Scheduled}
		}
		return slices.Contains(again, a.State) && a.Failures == 0 && a.Result == nil && a.Error == nil && len(a.Timers()) == dues(a) &&
			a.ResultBlob == nil && a.Progress == nil && a.Details == nil && a.Expires.IsZero() &&
			a.StartBy.IsZero() && a.Deadline.IsZero() && a.Redriven.Equal(at(s.event)) && reflect.DeepEqual(a.Attempts, s.before.Attempts)
	},
	"a refusal says what was refused and changes nothing": func(s taken) bool {
		var refused *MoveError
		return s.err == nil || reflect.DeepEqual(s.before, s.after) &&
			errors.As(s.err, &refused) && refused.ID == s.before.ID && refused.From == s.before.State
	},
	"the table tells the next state": func(s taken) bool {
		return s.err != nil || s.after.State == moves[s.before.State][s.event.move(s.before)]
	},
	"the holder's events are accepted, and nobody else's": func(s taken) bool {
		f, ok := s.event.(fenced)
		return !ok || s.before.Held(f.token()) == (s.err == nil)
	},
	"a report changes what it says and nothing else": func(s taken) bool {
		r, ok := s.event.(Reported)
		if !ok || s.err != nil {
			return true
		}
		want := s.before
		if r.Report != nil && r.Report.Progress != nil {
			want.Progress = r.Report.Progress
		}
		if r.Report != nil && len(r.Report.Details) > 0 {
			want.Details = r.Report.Details
		}
		return reflect.DeepEqual(want, s.after)
	},
	"what an attempt left for the next one stays until the job succeeds": func(s taken) bool {
		if len(s.before.Details) == 0 || s.after.State == Succeeded || redrives(s.event) {
			return true
		}
		return len(s.after.Details) > 0
	},
	"progress is that of the latest attempt": func(s taken) bool {
		return s.after.Attempt == s.before.Attempt || s.after.Progress == nil
	},
	"an outcome takes the token away and is found under it": func(s taken) bool {
		f, ok := s.event.(fenced)
		if _, reports := s.event.(Reported); !ok || reports || s.err != nil {
			return true
		}
		a, found := s.after.Ended(f.token())
		return found && !s.after.Held(f.token()) && a.Number == s.before.Attempt
	},
	"success wins": func(s taken) bool {
		_, done := s.event.(Done)
		return !done || s.err != nil || s.after.State == Succeeded
	},
	"a job with cancel starts nothing and ends as that says, unless it succeeds": func(s taken) bool {
		_, reports := s.event.(Reported)
		if s.before.Cancel == nil || s.err != nil || s.after.State == Succeeded || wishes(s.event) || reports {
			return true
		}
		state, code := Cancelled, "cancelled"
		if s.before.Cancel.Overdue {
			state, code = Failed, "deadline"
		}
		return s.after.State == state && reflect.DeepEqual(*s.after.Error, Error{Code: code, Message: s.before.Cancel.Cause})
	},
	"a wish to end a running job is noted, and one to end another ends it": func(s taken) bool {
		if !wishes(s.event) || s.err != nil {
			return true
		}
		if s.before.State == Running {
			return s.after.State == Running && s.after.Cancel != nil
		}
		if _, cancels := s.event.(Stopped); cancels {
			return s.after.State == Cancelled
		}
		return s.after.State == Failed
	},
	"a limit ends a job if it has one that is over, and nothing has started for the first": func(s taken) bool {
		limit, ok := s.event.(TimedOut)
		if !ok {
			return true
		}
		over := limit.Purpose == Deadline && !s.before.Deadline.IsZero() && !limit.At.Before(s.before.Deadline) ||
			limit.Purpose == QueuedTimeout && !s.before.StartBy.IsZero() && !limit.At.Before(s.before.StartBy) && s.before.Attempt == 0
		return (s.err == nil) == (over && s.before.State.Known() && !s.before.State.Final())
	},
	"the first wish to end stays until the job has ended": func(s taken) bool {
		return s.before.Cancel == nil || s.after.State.Final() || cmp.Equal(s.before.Cancel, s.after.Cancel)
	},
	"attempt grows by one at a claim or take-over that starts one, and nowhere else": func(s taken) bool {
		move := s.event.move(s.before)
		grown := 0
		if s.err == nil && (move == Claim || move == TakeOver) {
			grown = 1
		}
		return s.after.Attempt == s.before.Attempt+grown
	},
	"failures grow by one at an error and at a death, start again at a redrive, and never exceed the limit": func(s taken) bool {
		grown := 0
		if s.err == nil && fails(s.event, s.before) {
			grown = 1
		}
		if s.err == nil && redrives(s.event) {
			grown = -s.before.Failures
		}
		return s.after.Failures == s.before.Failures+grown && s.after.Failures <= s.after.Limit()
	},
	"due is a whole millisecond, and never before the event": func(s taken) bool {
		due := s.after.Due
		return due.Equal(s.before.Due) || due.IsZero() ||
			due.Equal(due.Truncate(time.Millisecond)) && !due.Before(at(s.event))
	},
	"there is a due time while scheduled or retrying, and none while pending or running": func(s taken) bool {
		return s.after.State.Final() || s.after.State == Waiting || s.after.State.Delayed() != s.after.Due.IsZero()
	},
	"there is a wait exactly while scheduled": func(s taken) bool {
		return (s.after.Wait != "") == (s.after.State == Scheduled)
	},
	"no attempt comes later than the policy allows": func(s taken) bool {
		e, ok := s.event.(Erred)
		if !ok || s.err != nil || s.after.State != Retrying {
			return true
		}
		policy := e.Retry
		if s.before.Retry != nil {
			policy = *s.before.Retry
		}
		since := s.after.Attempts[0].Started
		if !s.after.Redriven.IsZero() {
			since = s.after.Redriven
		}
		return policy.MaxAge == 0 || s.after.Due.Sub(since) <= policy.MaxAge
	},
	"a job that is not final has a failure left": func(s taken) bool {
		return s.after.State.Final() || s.after.Failures < s.after.Limit()
	},
	"the limit is settled once submitted or claimed": func(s taken) bool {
		return s.before.Attempt == 0 && s.before.MaxAttempts == 0 || s.before.MaxAttempts == s.after.MaxAttempts
	},
	"the fence is that of the last claim, and grows": func(s taken) bool {
		c, claims := claimantOf(s.event)
		if !claims || s.err != nil || s.after.State != Running {
			return s.after.Fence == s.before.Fence
		}
		return s.after.Fence == c.Fence && s.after.Fence > s.before.Fence && *s.after.Lease == c.Lease
	},
	"started is when the latest attempt was, or the dispatch": func(s taken) bool {
		list := s.after.Attempts
		if d, ok := s.event.(Dispatched); ok && s.err == nil {
			return s.after.Started.Equal(d.At)
		} else if s.after.Fan != nil {
			return s.after.Started.Equal(s.before.Started)
		}
		return len(list) == 0 && s.after.Started.IsZero() ||
			len(list) > 0 && s.after.Started.Equal(list[len(list)-1].Started)
	},
	"there is a lease exactly while running": func(s taken) bool {
		return (s.after.Lease != nil) == (s.after.State == Running)
	},
	"there is cancel only while running": func(s taken) bool {
		return s.after.Cancel == nil || s.after.State == Running
	},
	"finished is when it ended": func(s taken) bool {
		return s.after.State.Final() == !s.after.Finished.IsZero()
	},
	"failed, cancelled, skipped and lost jobs have an error, succeeded ones have none": func(s taken) bool {
		if s.after.State == Removing {
			return s.after.Error == s.before.Error
		}
		return !s.after.State.Final() || (s.after.Error == nil) == (s.after.State == Succeeded)
	},
	"a job owes what its state says": func(s taken) bool {
		return slices.Equal(s.after.Owes(), owed(s.after))
	},
	"a job that goes on has a timer for its due time and each limit": func(s taken) bool {
		return s.after.State.Final() || slices.Equal(s.after.Timers(), timersOf(s.after))
	},
	"a job that has ended and owns more than its record has a timer for its end, and no other": func(s taken) bool {
		var want []Timer
		if a := s.after; a.Owns() && a.State != Removing && !a.Expires.IsZero() {
			want = []Timer{{Expiry, a.Expires}}
		}
		return !s.after.State.Final() || slices.Equal(s.after.Timers(), want)
	},
	"a job that has ended remembers the timers that were there": func(s taken) bool {
		if !s.after.State.Final() {
			return true
		}
		for _, timer := range s.before.Timers() {
			if s.after.State != Removing && timer.Purpose == Expiry {
				continue
			}
			if !slices.Contains(s.after.Leftovers(), timer) {
				return false
			}
		}
		return true
	},
	"what the submitter gave stays, limits until a redrive": func(s taken) bool {
		a, b := s.before, s.after
		limits := a.StartBy.Equal(b.StartBy) && a.Deadline.Equal(b.Deadline)
		return a.ID == b.ID && a.Kind == b.Kind && a.Created.Equal(b.Created) &&
			(limits || redrives(s.event)) && cmp.Equal(a.Retry, b.Retry) &&
			bytes.Equal(a.Input, b.Input) && cmp.Equal(a.InputBlob, b.InputBlob) && cmp.Equal(a.Trace, b.Trace) &&
			a.Class == b.Class && cmp.Equal(a.Unique, b.Unique) && cmp.Equal(a.Parent, b.Parent)
	},
	"what follows from a valid record is valid": func(s taken) bool { return s.after.Validate() == nil },
	"attempts are a bounded list, in order":     func(s taken) bool { return attemptsInOrder(s.after) },
	"a token finds its attempt once it has ended": func(s taken) bool {
		for _, a := range s.after.Attempts {
			got, found := s.after.Ended(a.Token)
			if found != (a.Outcome != "") || found && !reflect.DeepEqual(got, a) {
				return false
			}
		}
		return true
	},
}

// wishes reports whether an event is somebody's wish that the job ends.
func wishes(ev Event) bool {
	switch ev.(type) {
	case Stopped, TimedOut:
		return true
	}
	return false
}

// redrives reports whether an event is somebody's wish that the job runs again.
func redrives(ev Event) bool {
	_, ok := ev.(Redriven)
	return ok
}

// attemptsInOrder reports whether the list is the first two and the last eight
// attempts, all ended but the one that runs.
func attemptsInOrder(j Job) bool {
	list := j.Attempts
	if len(list) != min(j.Attempt, keepFirst+keepLast) {
		return false
	}
	for i, a := range list {
		number := i + 1
		if i >= keepFirst {
			number = j.Attempt - len(list) + i + 1
		}
		runs := i == len(list)-1 && j.State == Running
		if a.Number != number || runs != (a.Outcome == "") || runs != a.Ended.IsZero() || runs != (a.Token == "") {
			return false
		}
	}
	return true
}

func claimantOf(ev Event) (Claimant, bool) {
	switch ev := ev.(type) {
	case Claimed:
		return ev.Claimant, true
	case Reclaimed:
		return ev.Claimant, true
	case TakenOver:
		return ev.Claimant, true
	}
	return Claimant{}, false
}

// check fails t if j after ev breaks a law, and returns j after ev.
func check(t rapid.TB, j Job, ev Event) (Job, error) {
	t.Helper()
	next, err := j.Apply(ev)
	for _, all := range []map[string]func(taken) bool{laws, familyLaws, tickLaws} {
		for name, holds := range all {
			if !holds(taken{j, ev, next, err}) {
				t.Fatalf("broken: %s\nbefore: %s\nevent: %T %+v\nafter: %s\nerr: %v", name, text(t, j), ev, ev, text(t, next), err)
			}
		}
	}
	return next, err
}

func text(t rapid.TB, j Job) string {
	t.Helper()
	data, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Long lives, drawn at random.
func TestLawsOfLongLives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			j, _ = check(t, j, drawEvent(t, j, step))
		}
	})
}

// Every life of up to five accepted events, or three of one that is for a node, has
// children or is of a schedule: none breaks a law, and together they make every move of the table
// and nothing else.
func TestLawsOfShortLives(t *testing.T) {
	t.Parallel()
	seen := map[State]map[Move]State{}
	var live func(j Job, step, last int)
	live = func(j Job, step, last int) {
		if step == last {
			return
		}
		for _, ev := range everyEvent(j, step) {
			next, err := check(t, j, ev)
			if err != nil {
				continue
			}
			if seen[j.State] == nil {
				seen[j.State] = map[Move]State{}
			}
			seen[j.State][ev.move(j)] = next.State
			live(next, step+1, last)
		}
	}
	for _, j := range newJobs(2) {
		live(j, 0, 5)
	}
	for _, j := range slices.Concat(newPinned(2), newFans(), newTicks()) {
		live(j, 0, 3)
	}
	if diff := cmp.Diff(moves, seen); diff != "" {
		t.Errorf("moves in the table (-) and made (+):\n%s", diff)
	}
	for _, s := range States {
		goesOn := slices.ContainsFunc(slices.Collect(maps.Keys(moves[s])), func(m Move) bool {
			return !slices.Contains([]Move{Redrive, Reopen, Restart, Remove}, m)
		})
		if s.Final() == goesOn {
			t.Errorf("%s has the moves %v, and final is %t", s, moves[s], s.Final())
		}
	}
}

// Values that were stored, sent or shown stay as they were, whatever is
// applied to them or to what came of them.
func TestApplyChangesNoOtherValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := []Job{drawJob(t)}
		texts := []string{text(t, values[0])}
		for step := range rapid.IntRange(1, 40).Draw(t, "steps") {
			// Mostly the latest, so that lives get long; sometimes a branch.
			from := len(values) - 1
			if rapid.IntRange(0, 3).Draw(t, "branch") == 0 {
				from = rapid.IntRange(0, from).Draw(t, "from")
			}
			next, err := values[from].Apply(drawEvent(t, values[from], step))
			if err == nil {
				values, texts = append(values, next), append(texts, text(t, next))
			}
			for i, j := range values {
				if got := text(t, j); got != texts[i] {
					t.Fatalf("value %d changed\nwas %s\nis  %s", i, texts[i], got)
				}
			}
		}
	})
}
