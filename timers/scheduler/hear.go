package scheduler

import (
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/feed"
)

// news is what was heard of a schedule since it was tended last.
type news struct {
	changed bool                // its definition
	missed  bool                // there may have been more to hear of its jobs
	ended   map[string]struct{} // jobs that are said to have ended
	wants   map[string]struct{} // jobs that wait for a turn, it is said
	gone    bool                // the definition; it is found out while tending
}

// hear returns what is known to be new, to be added to. The caller holds the lock of
// the scheduler.
func (c *course) hear() *news {
	if c.heard == nil {
		c.heard = &news{}
	}
	return c.heard
}

func add(set *map[string]struct{}, id string) {
	if *set == nil {
		*set = map[string]struct{}{}
	}
	(*set)[id] = struct{}{}
}

// listen hears of jobs of schedules until stop is called, which waits for the last
// that was heard.
func (s *Scheduler) listen() (stop func(), err error) {
	return feed.Hear(s.pub.Conn(), store.SignalSubject(s.opts.Namespace), func(msg *nats.Msg) {
		sig, err := store.ReadSignal(msg)
		if err != nil {
			s.opts.Logger.Debug("signal of a job passed over", "err", err)
			return
		}
		s.signalled(sig)
	})
}

// signalled notes what a job says. That one has ended matters only to a schedule that
// counts its jobs; a job that wants a turn always matters.
func (s *Scheduler) signalled(sig store.Signal) {
	if sig.State == machine.Scheduled {
		s.Wants(sig.Schedule, sig.ID)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.mu.courses[sig.Schedule]
	if c == nil || !c.watches && !c.busy {
		return
	}
	add(&c.hear().ended, sig.ID)
	s.rouse(c)
}

// Wants says that a job waits for a turn of a schedule. It does not block. Whoever
// says so may be wrong, or say it again.
func (s *Scheduler) Wants(schedule, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.course(schedule)
	add(&c.hear().wants, id)
	s.rouse(c)
}
