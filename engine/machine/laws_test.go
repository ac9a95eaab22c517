package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"

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
	"a final job refuses everything": func(s taken) bool {
		return !s.before.State.Final() || s.err != nil
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
	"an outcome takes the token away and is found under it": func(s taken) bool {
		f, ok := s.event.(fenced)
		if !ok || s.err != nil {
			return true
		}
		a, found := s.after.Ended(f.token())
		return found && !s.after.Held(f.token()) && a.Number == s.before.Attempt
	},
	"success wins": func(s taken) bool {
		_, done := s.event.(Done)
		return !done || s.err != nil || s.after.State == Succeeded
	},
	"a job with cancel starts nothing and ends as cancelled, unless it succeeds": func(s taken) bool {
		_, again := s.event.(Stopped)
		return s.before.Cancel == nil || s.err != nil || again ||
			s.after.State == Succeeded || s.after.State == Cancelled
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
	"failures grow by one at most, never go down and never exceed the limit": func(s taken) bool {
		grown := s.after.Failures - s.before.Failures
		return (grown == 0 || grown == 1) && s.after.Failures <= s.after.Limit()
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
	"started is when the latest attempt was": func(s taken) bool {
		list := s.after.Attempts
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
	"failed and cancelled jobs have an error, succeeded ones have none": func(s taken) bool {
		return !s.after.State.Final() || (s.after.Error == nil) == (s.after.State == Succeeded)
	},
	"pending and final jobs owe something, others nothing": func(s taken) bool {
		j := s.after
		return (len(j.Owes()) > 0) == (j.State == Pending || j.State.Final())
	},
	"what the submitter gave stays": func(s taken) bool {
		a, b := s.before, s.after
		return a.ID == b.ID && a.Kind == b.Kind && a.Created.Equal(b.Created) &&
			bytes.Equal(a.Input, b.Input) && cmp.Equal(a.Trace, b.Trace)
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
	for name, holds := range laws {
		if !holds(taken{j, ev, next, err}) {
			t.Fatalf("broken: %s\nbefore: %s\nevent: %T %+v\nafter: %s\nerr: %v", name, text(t, j), ev, ev, text(t, next), err)
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

// Every life of up to seven accepted events: none breaks a law, and together
// they make every move of the table and nothing else.
func TestLawsOfShortLives(t *testing.T) {
	t.Parallel()
	seen := map[State]map[Move]State{}
	var live func(j Job, step int)
	live = func(j Job, step int) {
		if step == 7 {
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
			live(next, step+1)
		}
	}
	live(Job{ID: "mail.1", Kind: "mail.send", State: Pending, MaxAttempts: 2}, 0)
	if diff := cmp.Diff(moves, seen); diff != "" {
		t.Errorf("moves in the table (-) and made (+):\n%s", diff)
	}
	for _, s := range States {
		if len(moves[s]) > 0 == s.Final() {
			t.Errorf("%s has %d moves, and final is %t", s, len(moves[s]), s.Final())
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

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for step := range rapid.IntRange(0, 30).Draw(t, "steps") {
			j, _ = j.Apply(drawEvent(t, j, step))
		}
		var got Job
		if err := json.Unmarshal([]byte(text(t, j)), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(j, got, sameJSON); diff != "" {
			t.Fatalf("record (-) and as read again (+):\n%s", diff)
		}
	})
}

// encoding/json drops blanks and escapes < and > in raw messages.
var sameJSON = cmp.Comparer(func(a, b json.RawMessage) bool {
	return bytes.Equal(canonical(a), canonical(b))
})

func canonical(raw json.RawMessage) []byte {
	var compact, escaped bytes.Buffer
	if len(raw) > 0 && json.Compact(&compact, raw) != nil {
		return raw
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	return escaped.Bytes()
}

// Whatever is delivered for whatever job, there is an answer, and acting on it
// is a move that the job allows.
func TestEveryDeliveryHasAnAction(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for step := range rapid.IntRange(0, 30).Draw(t, "steps") {
			j, _ = j.Apply(drawEvent(t, j, step))
			checkDeliveries(t, j, step)
		}
	})
}

func checkDeliveries(t rapid.TB, j Job, step int) {
	t.Helper()
	for _, d := range everyDelivery(j) {
		plain := j.Deliver(d)
		checkAction(t, j, plain, step)
		if plain == Seize {
			t.Fatalf("seized without asking: %+v of %s", d, text(t, j))
		}
		for _, a := range append(answers, "perhaps") {
			judged := j.Judge(d, a)
			checkAction(t, j, judged, step)
			proven := a == Denies || a == Unaware || a == Dead
			switch {
			case judged == Ask:
				t.Fatalf("answer %s leads to another question: %+v of %s", a, d, text(t, j))
			case plain != Ask && judged != plain:
				t.Fatalf("answer %s turned %s into %s: %+v of %s", a, plain, judged, d, text(t, j))
			case judged == Seize && !proven:
				t.Fatalf("answer %s proves nothing and leads to %s: %+v of %s", a, judged, d, text(t, j))
			}
		}
	}
}

// checkAction fails t if j does not allow what an action asks for.
func checkAction(t rapid.TB, j Job, action Action, step int) {
	t.Helper()
	c := claimant(step, "c", 9)
	var err error
	switch action {
	case TakeIt:
		_, err = j.Apply(Claimed{c})
	case TakeAgain:
		_, err = j.Apply(Reclaimed{c})
	case Seize:
		_, err = j.Apply(TakenOver{Claimant: c})
	case Settle:
		if len(j.Owes()) == 0 || !j.State.Final() {
			err = errors.New("nothing to settle")
		}
	case Adopt, Drop, Ask:
		if j.State != Running {
			err = errors.New("nobody runs it")
		}
	case Leave:
		if j.State.Known() && j.State != Running {
			err = errors.New("nothing to wait for")
		}
	default:
		err = errors.New("unknown action")
	}
	if err != nil {
		t.Fatalf("action %q: %v: %s", action, err, text(t, j))
	}
}

func TestUnknownStateIsLeftAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for step := range rapid.IntRange(0, 10).Draw(t, "steps") {
			j, _ = j.Apply(drawEvent(t, j, step))
		}
		j.State = State(rapid.StringMatching(`x[a-z]*`).Draw(t, "state"))
		if err := j.Validate(); err != nil {
			t.Fatal(err)
		}
		if owes := j.Owes(); len(owes) > 0 {
			t.Fatalf("a job in state %s owes %v", j.State, owes)
		}
		for _, ev := range everyEvent(j, 0) {
			if next, err := j.Apply(ev); err == nil {
				t.Fatalf("%T moved a job from %s to %s", ev, j.State, next.State)
			}
		}
		for _, d := range everyDelivery(j) {
			for _, a := range answers {
				if got, judged := j.Deliver(d), j.Judge(d, a); got != Leave || judged != Leave {
					t.Fatalf("state %s: deliver says %s, judge says %s, want leave", j.State, got, judged)
				}
			}
		}
	})
}
