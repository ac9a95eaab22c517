package scheduler

// Known returns how many schedules the scheduler knows, and how many of them do not
// rest.
func (s *Scheduler) Known() (all, awake int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.mu.courses {
		if c.busy || c.mind != nil {
			awake++
		}
	}
	return len(s.mu.courses), awake
}
