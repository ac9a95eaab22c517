package plan_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
)

// count is how many of some states there are.
type count struct{ total, open, ended, won int }

func countOf(states []machine.State) count {
	c := count{total: len(states)}
	for _, s := range states {
		switch {
		case s.Final():
			c.ended++
		case s != "":
			c.open++
		}
		if s == machine.Succeeded {
			c.won++
		}
	}
	return c
}

// decided tells the rules of docs/broadcast.md the long way.
func decided(fan machine.Fan, c count) (over, success bool) {
	best := c.won + c.total - c.ended // if all goes well from now on
	need := map[machine.Goal]int{
		machine.GoalAll: c.total, machine.GoalQuorum: c.total/2 + 1, machine.GoalAny: 1, machine.GoalCount: fan.Need,
	}[fan.Done]
	switch {
	case c.total == 0:
		return true, false
	case c.ended == c.total:
		return true, c.won >= need
	case (fan.Done == machine.GoalAny || fan.Done == machine.GoalCount) && c.won >= need:
		return true, true
	case (fan.Done == machine.GoalAny || fan.Done == machine.GoalCount) && best < need:
		return true, false
	case fan.MaxParallel > 0 && best < need && c.open == 0:
		return true, false
	}
	return false, false
}

// In whatever order and however often it hears of them, a tally says of the
// children what counting them says.
func TestTallyLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fan := someFan.Draw(t, "fan")
		states := make([]machine.State, rapid.IntRange(0, 12).Draw(t, "children"))
		tally := plan.NewTally(fan, len(states))
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if len(states) > 0 {
				i := rapid.IntRange(0, len(states)-1).Draw(t, "child")
				states[i] = rapid.SampledFrom(append([]machine.State{""}, machine.States...)).Draw(t, "state")
				for range rapid.IntRange(1, 2).Draw(t, "times") {
					tally.Set(i, states[i])
				}
			}
			checkTally(t, tally, fan, states)
		}
		fresh := plan.NewTally(fan, len(states))
		for _, i := range rapid.Permutation(indexes(len(states))).Draw(t, "order") {
			fresh.Set(i, states[i])
		}
		checkTally(t, fresh, fan, states)
	})
}

func checkTally(t *rapid.T, tally *plan.Tally, fan machine.Fan, states []machine.State) {
	t.Helper()
	c := countOf(states)
	over, success := tally.Decided()
	if wantOver, wantSuccess := decided(fan, c); over != wantOver || success != wantSuccess {
		t.Fatalf("%+v of %v: over %t, success %t, want %t, %t", fan, states, over, success, wantOver, wantSuccess)
	}
	var open, missing []int
	for i, s := range states {
		if s == "" {
			missing = append(missing, i)
		} else if !s.Final() {
			open = append(open, i)
		}
	}
	if got := tally.Open(); !slices.Equal(got, open) {
		t.Fatalf("%v: open are %v, want %v", states, got, open)
	}
	checkNext(t, tally.Next(), fan, c, missing)
	sum := tally.Sum(strconv.Itoa)
	if all := sum.Succeeded + sum.Failed + sum.Lost + sum.Cancelled + sum.Unstarted; all != len(states) || sum.Succeeded != c.won || sum.Unstarted != len(missing) {
		t.Fatalf("%v: %+v", states, sum)
	}
}

// checkNext fails t if the next children are not the first of those that are
// missing, as many as may be open at a time.
func checkNext(t *rapid.T, next []int, fan machine.Fan, c count, missing []int) {
	t.Helper()
	over, _ := decided(fan, c)
	// Nothing further: no child that had not begun could turn it.
	alone := c
	alone.open = 0
	stuck, _ := decided(fan, alone)
	switch {
	case over, fan.MaxParallel > 0 && stuck:
		if len(next) > 0 {
			t.Fatalf("%+v, %+v: it is decided, and %v are to be made", fan, c, next)
		}
	case fan.MaxParallel == 0:
		if !slices.Equal(next, missing) {
			t.Fatalf("%+v: %v are to be made of %v", fan, next, missing)
		}
	default:
		room := min(max(0, fan.MaxParallel-c.open), len(missing))
		if !slices.Equal(next, missing[:room]) {
			t.Fatalf("%+v, %d open: %v are to be made of %v", fan, c.open, next, missing)
		}
	}
}

// A whole rolling broadcast: never more at a time than allowed, every one once,
// and after the first failure none any more.
func TestRollingTally(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fan := machine.Fan{Done: machine.GoalAll, MaxParallel: rapid.IntRange(1, 4).Draw(t, "parallel")}
		total := rapid.IntRange(1, 12).Draw(t, "children")
		tally := plan.NewTally(fan, total)
		made, failed := map[int]bool{}, false
		for over, _ := tally.Decided(); !over; over, _ = tally.Decided() {
			for _, i := range tally.Next() {
				if made[i] || failed {
					t.Fatalf("%d is to be made; made are %v, one has failed: %t", i, made, failed)
				}
				made[i] = true
				tally.Set(i, machine.Pending)
			}
			open := tally.Open()
			if len(open) == 0 || len(open) > fan.MaxParallel {
				t.Fatalf("%v are open of %d at a time", open, fan.MaxParallel)
			}
			how := rapid.SampledFrom([]machine.State{machine.Succeeded, machine.Succeeded, machine.Failed}).Draw(t, "end")
			failed = failed || how == machine.Failed
			tally.Set(rapid.SampledFrom(open).Draw(t, "which"), how)
		}
		if _, success := tally.Decided(); success == failed || !failed && len(made) != total {
			t.Fatalf("success is %t, one has failed: %t, made %d of %d", success, failed, len(made), total)
		}
	})
}

// What is stored names those first that went wrong by themselves.
func TestSumNamesTwenty(t *testing.T) {
	t.Parallel()
	tally := plan.NewTally(machine.Fan{Done: machine.GoalAll}, 60)
	for i := range 50 {
		tally.Set(i, []machine.State{machine.Succeeded, machine.Cancelled, machine.Running, machine.Failed, machine.Lost}[i%5])
	}
	want := machine.Tally{Succeeded: 10, Failed: 10, Lost: 10, Cancelled: 20, Unstarted: 10}
	for i := range 50 {
		if i%5 >= 3 {
			want.Missed = append(want.Missed, fmt.Sprint("n", i))
		}
	}
	got := tally.Sum(func(i int) string { return fmt.Sprint("n", i) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	tally.Set(4, machine.Succeeded)
	if got := tally.Sum(strconv.Itoa); len(got.Missed) != 20 || got.Missed[18] != "49" || got.Missed[19] != "1" {
		t.Errorf("got %v, want those that failed or are lost, and then the first that was cancelled", got.Missed)
	}
}

// Hearing of a child costs the same, however many there are.
func BenchmarkTally(b *testing.B) {
	for _, total := range []int{10, 10_000} {
		b.Run(strconv.Itoa(total), func(b *testing.B) {
			tally := plan.NewTally(machine.Fan{Done: machine.GoalAll, MaxParallel: 5}, total)
			for i := 0; b.Loop(); i++ {
				tally.Set(i%total, machine.Succeeded)
				if over, _ := tally.Decided(); over || len(tally.Next()) == 0 {
					tally.Set(i%total, machine.Pending)
				}
			}
		})
	}
}

var someFan = rapid.Custom(func(t *rapid.T) machine.Fan {
	return machine.Fan{
		Done:        rapid.SampledFrom([]machine.Goal{machine.GoalAll, machine.GoalQuorum, machine.GoalAny, machine.GoalCount}).Draw(t, "done"),
		Need:        rapid.IntRange(1, 14).Draw(t, "need"),
		MaxParallel: rapid.IntRange(0, 4).Draw(t, "parallel"),
	}
})

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
