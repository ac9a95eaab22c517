package intake

import (
	"testing"

	"pgregory.net/rapid"
)

// While a class waits, no other has more turns before its next one than its share
// and one more, whoever comes, goes, gives up and looks in vain. Within a class the
// first is first, no slot is free while anybody waits, and none is lost or made.
func TestArbiterLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(1, 4).Draw(t, "slots")
		a := arbiter{free: slots}
		taken := 0
		var waiting [ranks][]*ticket
		var others [ranks][ranks]int // how many turns another had since the class waits or had one
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			r := rank(rapid.IntRange(0, int(ranks)-1).Draw(t, "rank"))
			switch op := rapid.IntRange(0, 8).Draw(t, "op"); {
			case op < 4:
				if len(waiting[r]) == 0 {
					others[r] = [ranks]int{}
				}
				w := &ticket{rank: r}
				if a.take() {
					taken++
				} else {
					a.queue(w)
					waiting[r] = append(waiting[r], w)
				}
			case op < 8 && taken > 0:
				for used := false; !used; {
					got := a.release()
					taken--
					if got == nil {
						break
					}
					taken++
					if len(waiting[got.rank]) == 0 || waiting[got.rank][0] != got {
						t.Fatalf("somebody of class %d was served out of turn", got.rank)
					}
					waiting[got.rank] = waiting[got.rank][1:]
					used = rapid.Bool().Draw(t, "used")
					a.conclude(got, used)
					if a.lines[got.rank].turn == got.turn {
						continue // somebody else of the class has the turn
					}
					others[got.rank] = [ranks]int{}
					for class := range ranks {
						if len(waiting[class]) == 0 || class == got.rank {
							continue
						}
						others[class][got.rank]++
						if n, most := others[class][got.rank], int(strides[class]/strides[got.rank])+1; n > most {
							t.Fatalf("class %d waits, and class %d had %d turns, more than %d", class, got.rank, n, most)
						}
					}
				}
			case op == 8 && len(waiting[r]) > 0:
				i := rapid.IntRange(0, len(waiting[r])-1).Draw(t, "who")
				if !a.withdraw(waiting[r][i]) || a.withdraw(waiting[r][i]) {
					t.Fatal("a wish can be withdrawn once")
				}
				waiting[r] = append(waiting[r][:i:i], waiting[r][i+1:]...)
			}
			if all := len(waiting[high]) + len(waiting[normal]) + len(waiting[low]); a.free+taken != slots || a.free > 0 && all > 0 {
				t.Fatalf("%d of %d slots are free and %d taken while %d wait", a.free, slots, taken, all)
			}
		}
	})
}

// While all classes wait, each gets its share of any 21 slots, and the turns of
// each are spread.
func TestArbiterShares(t *testing.T) {
	t.Parallel()
	a := arbiter{}
	for r := range ranks {
		for range 1000 {
			a.queue(&ticket{rank: r})
		}
	}
	var turns []rank
	for range 210 {
		turns = append(turns, a.release().rank)
	}
	for from := range len(turns) - 21 {
		var got [ranks]int
		for _, r := range turns[from : from+21] {
			got[r]++
		}
		if want := [ranks]int{16, 4, 1}; got != want {
			t.Fatalf("slots %d to %d went to %v, want %v", from, from+20, got, want)
		}
	}
	for i, r := range turns[:6] {
		if want := []rank{high, high, high, high, normal, high}[i]; r != want {
			t.Errorf("slot %d went to class %d, want %d: %v", i, r, want, turns[:6])
		}
	}
}

// However many look in vain, those of their class that find something have its
// share, and so have the other classes.
func TestArbiterLooksInVain(t *testing.T) {
	t.Parallel()
	a, idle := arbiter{}, map[*ticket]bool{}
	ask := func(r rank, vain bool) {
		ticket := &ticket{rank: r}
		a.queue(ticket)
		if vain {
			idle[ticket] = true
		}
	}
	for r := range ranks {
		ask(r, false)
	}
	for range 40 {
		ask(normal, true)
		ask(low, true)
	}
	var got [ranks]int
	for slot := 0; slot < 2100; {
		ticket := a.release()
		a.conclude(ticket, !idle[ticket])
		ask(ticket.rank, idle[ticket])
		if !idle[ticket] {
			got[ticket.rank]++
			slot++
		}
	}
	if want := [ranks]int{1600, 400, 100}; got != want {
		t.Errorf("of 2100 slots %v went to the classes, want %v", got, want)
	}
}

// A class that comes now and then is before the lower ones, although it has had
// more than its share of late.
func TestArbiterComesAndGoes(t *testing.T) {
	t.Parallel()
	a := arbiter{}
	for range 1000 {
		a.queue(&ticket{rank: normal})
	}
	wins := 0
	for range 100 {
		a.queue(&ticket{rank: high})
		if a.release().rank == high {
			wins++
		} else if a.release().rank != high {
			t.Fatal("two normal ones were before a high one")
		}
	}
	if wins < 70 {
		t.Errorf("of 100 high ones %d were first, want most", wins)
	}
}
