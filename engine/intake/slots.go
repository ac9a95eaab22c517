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

// take takes a slot, for which it waits until ctx ends. It reports whether there
// was one.
func (s *slots) take(ctx context.Context, r rank) bool {
	t := s.ask(r)
	return t == nil || s.await(ctx, t)
}

// takeWithin is take that waits no longer than d.
func (s *slots) takeWithin(ctx context.Context, r rank, d time.Duration) bool {
	t := s.ask(r)
	if t == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return s.await(ctx, t)
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
// and no more than one queue's share of those that are free.
func (s *slots) reserve(ctx context.Context, r rank, n int) int {
	if !s.take(ctx, r) {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := min(n-1, s.arbiter.free/s.queues)
	s.arbiter.free -= more
	return 1 + more
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
