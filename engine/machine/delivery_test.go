package machine

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

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
		checkAction(t, j, plain, taker(step, d))
		if j.Fan != nil || j.Pin != nil && j.Pin.Node != d.Node {
			if open := j.State.Known() && !j.State.Final(); open && plain != Drop {
				t.Fatalf("not for whom it reached, and that leads to %s: %+v of %s", plain, d, text(t, j))
			}
			continue
		}
		if due := j.Wait != WaitTurn && (d.Due.Equal(j.Due) || !d.Now.Before(j.Due)); j.State.Delayed() && (plain == TakeIt) != due {
			t.Fatalf("due is %t, and that leads to %s: %+v of %s", due, plain, d, text(t, j))
		}
		if plain == Seize {
			t.Fatalf("seized without asking: %+v of %s", d, text(t, j))
		}
		for _, a := range append(answers, "perhaps") {
			judged := j.Judge(d, a)
			checkAction(t, j, judged, taker(step, d))
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

// taker is who claims what was delivered.
func taker(step int, d Delivery) Claimant { return claimant(step, d.Node, 9) }

// checkAction fails t if j does not allow what an action asks c to do.
func checkAction(t rapid.TB, j Job, action Action, c Claimant) {
	t.Helper()
	var err, postponed error
	switch action {
	case TakeIt:
		_, err = j.Apply(Claimed{c})
		_, postponed = j.Apply(Postponed{At: c.At})
	case TakeAgain:
		_, err = j.Apply(Reclaimed{c})
		_, postponed = j.Apply(Postponed{At: c.At, LostClaim: true})
	case Seize:
		_, err = j.Apply(TakenOver{Claimant: c})
		_, postponed = j.Apply(Postponed{At: c.At})
	case Settle:
		if len(j.Owes()) == 0 || !j.State.Final() && !j.State.Delayed() {
			err = errors.New("nothing to settle")
		}
	case Drop:
		if j.State != Running && j.Fan == nil && !j.Barred(c.Lease.Node) {
			err = errors.New("somebody is to run it")
		}
	case Adopt, Ask:
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
	if err = errors.Join(err, postponed); err != nil {
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
		if owes, timers := j.Owes(), j.Timers(); len(owes) > 0 || len(timers) > 0 {
			t.Fatalf("a job in state %s owes %v and has timers %v", j.State, owes, timers)
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
