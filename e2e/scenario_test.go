package e2e_test

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/e2e/cluster"
)

// A scenario is a story of processes and faults, told on one server, on three,
// or on both.
type scenario struct {
	name  string
	one   level // from which on it is told on one server, or never
	three level // the same on three
	tell  func(t *testing.T, servers int)
}

// level is how much is told: the flag -scenarios.
type level int

const (
	quick level = iota // a part of make test: seconds, the most telling
	short              // make e2e: the same faults as in full, fewer rounds and less time
	full               // make scenarios: in full length, with the figures of docs/reliability.md
	never
)

// levels are the words for levels.
var levels = []string{"quick", "short", "full"}

var told = levelFlag("scenarios", "how much of the scenarios is told: quick, short or full")

// levelFlag defines a flag.
func levelFlag(name, usage string) *level {
	l := quick
	flag.Var(&l, name, usage)
	return &l
}

// String is the word for l.
func (l *level) String() string { return levels[*l] }

// Set makes l what the word says.
func (l *level) Set(word string) error {
	n := slices.Index(levels, word)
	if n < 0 {
		return fmt.Errorf("there is no level %q: write quick, short or full", word)
	}
	*l = level(n)
	return nil
}

// scale returns how long or how much it is at the level that was asked for.
func scale[T any](atQuick, atShort, atFull T) T {
	return []T{atQuick, atShort, atFull}[*told]
}

// tell tells those scenarios that are for the level that was asked for, several
// at a time.
func tell(t *testing.T, scenarios ...scenario) {
	t.Helper()
	t.Parallel()
	for _, s := range scenarios {
		for servers, from := range map[int]level{1: s.one, 3: s.three} {
			if *told < from {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", s.name, servers), func(t *testing.T) {
				t.Parallel()
				s.tell(t, servers)
			})
		}
	}
}

// room is for five clusters of three servers at once, or ten of one, which mostly
// wait: with more, a machine of two cores is late for what the scenarios are about.
var room = semaphore.NewWeighted(10)

// begin starts a cluster when there is room for it. It is gone when the test has
// ended.
func begin(t testing.TB, o cluster.Options) *cluster.Cluster {
	t.Helper()
	admit(t, o.Servers)
	return cluster.New(t, o)
}

// admit waits until there is room for servers, which is given back when the test
// has ended.
func admit(t testing.TB, servers int) {
	t.Helper()
	size := int64(1)
	if servers > 1 {
		size = 2
	}
	if err := room.Acquire(t.Context(), size); err != nil {
		t.Fatalf("wait for room for a cluster: %v", err)
	}
	t.Cleanup(func() { room.Release(size) })
}
