package intake

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What is not to be taken, and from when on it may be, by what was said of an item.
func TestMarks(t *testing.T) {
	t.Parallel()
	const lease = 6 * time.Second
	for name, test := range map[string]struct {
		say  func(m *marks)
		free time.Duration // when it may be taken again; 0: at once
		look bool          // whether it is to be looked for then
	}{
		"nothing":            {func(*marks) {}, 0, false},
		"dropped":            {func(m *marks) { m.take(1); m.drop(1) }, 0, false},
		"in line":            {func(m *marks) { m.take(1) }, -1, false},
		"kept in line":       {func(m *marks) { m.take(1); m.Kept(1) }, -1, false},
		"given":              {func(m *marks) { m.take(1); m.give(1) }, lease, true},
		"kept":               {func(m *marks) { m.give(1); time.Sleep(5 * time.Second); m.Kept(1) }, lease, true},
		"left":               {func(m *marks) { m.give(1); m.Left(1, time.Minute) }, time.Minute, true},
		"left at once":       {func(m *marks) { m.give(1); m.Left(1, 0) }, 0, true},
		"left before now":    {func(m *marks) { m.give(1); m.Left(1, -time.Second) }, 0, true},
		"kept after left":    {func(m *marks) { m.give(1); m.Left(1, time.Minute); m.Kept(1) }, time.Minute, true},
		"done":               {func(m *marks) { m.give(1); m.Done(1) }, doneFor, false},
		"kept after done":    {func(m *marks) { m.give(1); m.Done(1); m.Kept(1) }, doneFor, false},
		"kept and forgotten": {func(m *marks) { m.Kept(1) }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMarks()
				m.serve(lease)
				test.say(m)
				if test.free < 0 {
					time.Sleep(time.Hour)
					if m.sweep() || m.take(1) {
						t.Error("it may be taken")
					}
					return
				}
				if test.free > 0 {
					time.Sleep(test.free - time.Nanosecond)
					if m.sweep() || m.take(1) {
						t.Error("it may be taken too early")
					}
					if wait, any := m.wait(); !any || wait > sweepEvery {
						t.Errorf("the next sweep is in %v, %v", wait, any)
					}
					time.Sleep(time.Nanosecond)
				}
				if look := m.sweep(); look != test.look {
					t.Errorf("it is to be looked: %v, want %v", look, test.look)
				}
				if _, any := m.wait(); any || len(m.of) != 0 {
					t.Errorf("marks are left: %v", m.of)
				}
				if !m.take(1) {
					t.Error("it may not be taken")
				}
			})
		})
	}
}

// Sweeps come when the first mark is over, but not one after the other.
func TestMarksSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, began := newMarks(), time.Now()
		for i := range uint64(100) {
			m.Left(i, time.Second+time.Duration(i)*10*time.Millisecond)
		}
		var sweeps []time.Duration
		for {
			wait, any := m.wait()
			if !any {
				break
			}
			time.Sleep(wait)
			m.sweep()
			sweeps = append(sweeps, time.Since(began))
		}
		if sweeps[0] != time.Second || sweeps[len(sweeps)-1] > 2*time.Second+sweepEvery || len(sweeps) > 11 || !slices.IsSorted(sweeps) {
			t.Errorf("it was swept after %v", sweeps)
		}
		select {
		case <-m.sooner:
		default:
			t.Error("nobody was told of the first mark")
		}
	})
}
