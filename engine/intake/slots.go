package intake

import (
	"context"
	"sync"
	"time"
)

// slots are what the process can run at once.
type slots struct {
	queues int // among which the free ones are shared

	mu      sync.Mutex
	arbiter arbiter
}

func newSlots(n, queues int) *slots {
	return &slots{queues: max(queues, 1), arbiter: arbiter{free: n}}
}

// left returns how many slots are free.
func (s *slots) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arbiter.free
}

// takeWithin takes a slot, for which it waits until ctx ends, but no longer than d.
// It reports whether there was one.
func (s *slots) takeWithin(ctx context.Context, r rank, d time.Duration) bool {
	t := s.ask(r)
	if t == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if !s.await(ctx, t) {
		return false
	}
	s.conclude(t, true)
	return true
}

// ask takes a slot and returns nil, or returns the ticket for one.
func (s *slots) ask(r rank) *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arbiter.take() {
		return nil
	}
	t := &ticket{rank: r, granted: make(chan struct{})}
	s.arbiter.queue(t)
	return t
}

// await waits until a wish comes true, unless ctx ends first.
func (s *slots) await(ctx context.Context, t *ticket) bool {
	select {
	case <-t.granted:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.arbiter.withdraw(t)
}

// reserve takes up to n slots: at least one, for which it waits unless ctx ends,
// and no more than one queue's share of those that are free. The caller says by
// settle how many of them it used.
func (s *slots) reserve(ctx context.Context, r rank, n int) (reserved int, settle func(used int)) {
	t := s.ask(r)
	if t != nil && !s.await(ctx, t) {
		return 0, func(int) {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := min(n-1, s.arbiter.free/s.queues)
	s.arbiter.free -= more
	return 1 + more, func(used int) {
		if t != nil {
			s.conclude(t, used > 0)
		}
		s.free(1 + more - used)
	}
}

func (s *slots) conclude(t *ticket, used bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arbiter.conclude(t, used)
}

// free gives n slots back.
func (s *slots) free(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		if t := s.arbiter.release(); t != nil {
			close(t.granted)
		}
	}
}
