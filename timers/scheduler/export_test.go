package scheduler

import "time"

// Known returns how many schedules the scheduler knows, and how many of them do not
// rest, as far as it counts them.
func (s *Scheduler) Known() (all, awake int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if awake = s.mu.awake + len(s.mu.ready); awake > 0 {
		return len(s.mu.courses), awake
	}
	for _, c := range s.mu.courses {
		if c.busy {
			awake++
		}
	}
	return len(s.mu.courses), awake
}

// RereadEvery has changes read so rarely until undo is called.
func RereadEvery(d time.Duration) (undo func()) {
	was := rereadEvery
	rereadEvery = d
	return func() { rereadEvery = was }
}
