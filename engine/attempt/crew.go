package attempt

import "sync"

// maxIdle is how many goroutines a crew keeps that have nothing to do.
const maxIdle = 256

// crew is goroutines that are used again. An attempt needs a deep stack, and a new
// goroutine would have to grow one each time, which costs a tenth of what the
// worker does for a job.
type crew struct {
	all  sync.WaitGroup
	idle chan struct{} // a token for each that has nothing to do
	next chan func()   // to one of them
	over chan struct{} // closed when they are to end
	end  func()
}

func newCrew() *crew {
	over := make(chan struct{})
	return &crew{
		idle: make(chan struct{}, maxIdle), next: make(chan func()),
		over: over, end: sync.OnceFunc(func() { close(over) }),
	}
}

// do runs f on a goroutine. If f ends that (runtime.Goexit), nobody misses it.
func (c *crew) do(f func()) {
	select {
	case c.next <- f:
	default:
		c.all.Go(func() { c.run(f) })
	}
}

// run runs f, and what comes after it.
func (c *crew) run(f func()) {
	for {
		f()
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-c.next:
			<-c.idle
		case <-c.over:
			return
		}
	}
}

// wait waits until everything is done that was to be done, and nobody is left.
// There must be nothing to do any more.
func (c *crew) wait() {
	c.end()
	c.all.Wait()
}
