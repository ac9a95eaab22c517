package broadcast_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/natstest"
)

// Two keepers at once, and of each broadcast there is one end.
func TestTwoKeepers(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("a", nil)
		w.keep("b", nil)
		const n = 20
		w.submit(parent(n, func(f *machine.Fan) { f.MaxParallel, f.Done = 3, machine.GoalQuorum }))
		for i := range n {
			time.Sleep(moment)
			if open := w.open(); len(open) != min(3, n-i) {
				t.Errorf("%d are open after %d have ended", len(open), i)
			}
			how := machine.Succeeded
			if i%4 == 0 {
				how = machine.Failed
			}
			w.end(i, how)
		}
		time.Sleep(moment)
		j := w.get("q.1").Value
		if j.State != machine.Succeeded || j.Fan.Tally.Succeeded != 15 || j.Fan.Tally.Failed != 5 {
			t.Errorf("it is %s: %+v", j.State, j.Fan.Tally)
		}
	})
}

// The keeper dies at each of its writes, before or after that is stored, and another
// one goes on.
func TestKeeperDies(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		for rolling := range 2 {
			t.Run(fmt.Sprint(fault, rolling), func(t *testing.T) {
				for at := 1; ; at++ {
					if hit := dies(t, at, fault, rolling); !hit {
						if at < 2 {
							t.Error("the keeper writes nothing")
						}
						break
					}
				}
			})
		}
	}
}

// dies lets the keeper die at a write, and reports whether there was such a write.
func dies(t *testing.T, at int, fault natstest.Fault, rolling int) (hit bool) {
	bubble(t, func(_ *testing.T, w *world) {
		dead := make(chan struct{})
		var once sync.Once
		first := w.keep("a", func(write natstest.Write) natstest.Fault {
			if write.Number < at {
				return natstest.Pass
			}
			once.Do(func() { close(dead) })
			return fault
		})
		w.loops(func(ctx context.Context) error {
			select {
			case <-dead:
				first.stop()
			case <-ctx.Done():
			}
			return nil
		})
		const n = 4
		w.submit(parent(n, func(f *machine.Fan) { f.MaxParallel = rolling }))
		other := false
		for done := 0; done < n; {
			time.Sleep(moment)
			for _, i := range w.open() {
				w.end(i, machine.Succeeded)
				done++
			}
			select {
			case <-dead:
				if !other {
					other = true
					time.Sleep(2 * lease)
					w.keep("b", nil).Seen("q.1")
				}
			default:
			}
		}
		time.Sleep(2 * lease)
		select {
		case <-dead:
			if hit = true; !other {
				w.keep("b", nil).Seen("q.1")
			}
		default:
		}
		time.Sleep(polled)
		w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: n})
	})
	return hit
}

// Whatever happens to the keepers and their messages, a broadcast ends, and says how
// its parts have.
func TestRandom(t *testing.T) {
	first, many := uint64(1), *seeds
	if *seed > 0 {
		first, many = *seed, 1
	}
	for seed := first; seed < first+many; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) { random(t, srv, seed) })
		})
	}
}

var (
	seeds = flag.Uint64("seeds", 20, "how many random programs TestRandom runs")
	seed  = flag.Uint64("seed", 0, "the one random program that TestRandom runs again")
)

func random(t *testing.T, srv *server.Server, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(t, srv)
	faults := rand.New(rand.NewPCG(seed, 8))
	var mu sync.Mutex
	decide := func(natstest.Write) natstest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if faults.IntN(10) > 0 {
			return natstest.Pass
		}
		return []natstest.Fault{natstest.CutBefore, natstest.CutAfter}[faults.IntN(2)]
	}
	n, goals := 1+rnd.IntN(8), []machine.Goal{machine.GoalAll, machine.GoalQuorum, machine.GoalAny, machine.GoalCount}
	parallel, goal := rnd.IntN(4), goals[rnd.IntN(len(goals))]
	j := parent(n, func(f *machine.Fan) { f.MaxParallel, f.Done, f.Need = parallel, goal, 1+n/3 })
	keepers := []*keeping{w.keep("k", decide)}
	w.submit(j)
	for step := 0; step < 60 && w.get("q.1").Value.State == machine.Waiting; step++ {
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
		open := w.open()
		if parallel > 0 && len(open) > parallel {
			t.Fatalf("%d parts are open, and %d may be", len(open), parallel)
		}
		switch rnd.IntN(6) {
		case 0: // another owner, as well or instead
			keepers = append(keepers, w.keep(fmt.Sprint("k", step), decide))
			if rnd.IntN(2) == 0 {
				keepers[rnd.IntN(len(keepers)-1)].stop()
			}
			keepers[len(keepers)-1].Seen("q.1")
		case 1:
			w.rumour("q.1", fmt.Sprintf("n%03d", rnd.IntN(n)), machine.Failed)
		default:
			w.endsOne(rnd, open)
		}
	}
	last := w.keep("last", nil)
	last.Seen("q.1")
	for range 3 * n {
		time.Sleep(polled)
		w.endsOne(rnd, w.open())
	}
	time.Sleep(polled)
	w.wantTruth(goal, 1+n/3)
}

// endsOne lets one of some children end, and maybe tells nobody.
func (w *world) endsOne(rnd *rand.Rand, open []int) {
	w.Helper()
	if len(open) == 0 || w.get("q.1").Value.State != machine.Waiting {
		return
	}
	how := []machine.State{machine.Succeeded, machine.Succeeded, machine.Failed, machine.Lost}[rnd.IntN(4)]
	entry := w.silently(open[rnd.IntN(len(open))], how)
	if rnd.IntN(3) > 0 {
		must(0, w.Owe(w.Context(), entry))(w)
	}
}

// wantTruth fails the test unless q.1 has ended, and says what its children do.
func (w *world) wantTruth(goal machine.Goal, need int) {
	w.Helper()
	j := w.get("q.1").Value
	counted := map[machine.State]int{}
	for _, s := range w.states() {
		counted[s]++
	}
	tally := j.Fan.Tally
	got := [...]int{tally.Succeeded, tally.Failed, tally.Lost, tally.Cancelled, tally.Unstarted}
	want := [...]int{counted[machine.Succeeded], counted[machine.Failed], counted[machine.Lost], counted[machine.Cancelled], counted[""]}
	if got != want {
		w.Errorf("it says succeeded, failed, lost, cancelled, unstarted %v, and its parts %v", got, want)
	}
	total := j.Fan.Total
	needed := map[machine.Goal]int{machine.GoalAll: total, machine.GoalQuorum: total/2 + 1, machine.GoalAny: 1, machine.GoalCount: need}[goal]
	state := machine.Failed
	if counted[machine.Succeeded] >= needed {
		state = machine.Succeeded
	}
	if j.State != state {
		w.Errorf("it is %s with %d of %d succeeded and %d needed", j.State, counted[machine.Succeeded], total, needed)
	}
	if open := w.open(); len(open) > 0 {
		w.Errorf("%v go on", open)
	}
}
