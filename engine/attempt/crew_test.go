package attempt

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Everything is done, once, also by goroutines that end with it, and nobody is
// left.
func TestCrew(t *testing.T) {
	t.Parallel()
	c, n := newCrew(), new(atomic.Int64)
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for i := range 1000 {
				c.do(func() {
					n.Add(1)
					if i%7 == 0 {
						runtime.Goexit()
					}
				})
			}
		})
	}
	callers.Wait()
	c.wait()
	c.do(func() { n.Add(1) }) // late, and alone
	c.wait()
	if n.Load() != 4001 {
		t.Errorf("%d calls of 4001 were made", n.Load())
	}
}

// More may be at work than are kept.
func TestCrewIsBounded(t *testing.T) {
	t.Parallel()
	c := newCrew()
	var at, done sync.WaitGroup
	release := make(chan struct{})
	for range 3 * maxIdle {
		at.Add(1)
		done.Add(1)
		c.do(func() { at.Done(); <-release; done.Done() })
	}
	at.Wait()
	close(release)
	done.Wait()
	if n := len(c.idle); n > maxIdle {
		t.Errorf("%d goroutines are kept", n)
	}
	c.wait()
}

// BenchmarkCrew compares a goroutine that is used again with a new one, for work
// that needs a deep stack.
func BenchmarkCrew(b *testing.B) {
	for name, do := range map[string]func(*crew, func()){
		"again": (*crew).do,
		"new":   func(c *crew, f func()) { c.all.Go(f) },
	} {
		b.Run(name, func(b *testing.B) {
			c := newCrew()
			defer c.wait()
			b.ReportAllocs()
			done := make(chan struct{})
			for range b.N {
				do(c, func() { deep(40); done <- struct{}{} })
				<-done
			}
		})
	}
}

//go:noinline
func deep(n int) [32]int {
	var frame [32]int
	if n > 0 {
		frame = deep(n - 1)
	}
	frame[n%len(frame)]++
	return frame
}
