package reconcile

import "time"

// Count is the jobs of a queue that have not ended, by what they do: wait for a
// worker, wait for their due time or their turn, run, wait for their children.
type Count struct{ Pending, Delayed, Running, Waiting int }

// Count counts the jobs of all queues that have some, as they were some ten
// seconds ago. It returns nil until all jobs have been read once, and costs the
// server nothing.
func (r *Reconciler) Count() map[string]Count {
	x := r.whole.Load()
	if x == nil {
		return nil
	}
	return x.counts(r.opts.Clock.Now())
}

// counts counts the jobs of all queues.
func (x *index) counts(now time.Time) map[string]Count {
	x.mu.Lock()
	defer x.mu.Unlock()
	counts := make(map[string]Count, len(x.queues))
	for name, q := range x.queues {
		delayed := q.turns
		for d := range q.driven {
			delayed += q.driven[d].due.after(now.Add(-grace))
		}
		counts[name] = Count{
			Pending: len(q.jobs) - delayed - q.running - q.waiting,
			Delayed: delayed, Running: q.running, Waiting: q.waiting,
		}
	}
	return counts
}
