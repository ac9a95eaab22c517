package attempt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/streams"
)

// Running is what runs on this node, whoever runs it: the attempts, by their
// tokens, and the deliveries that are to be kept alive. It answers "do you run
// job X under token T?".
type Running struct {
	lease time.Duration

	mu       sync.Mutex
	attempts map[string]*attempt            // by token
	held     map[*streams.Delivery]struct{} // taken from a queue, not answered
}

// attempt is one run of a handler on this node, from before its claim is sent
// until its outcome is decided.
type attempt struct {
	job      string
	delivery *streams.Delivery
	lost     time.Time // when the lease was lost
	returned bool      // the outcome is in hand: the lease does not matter
	ended    error     // why it is to end, if somebody wants that
	end      context.CancelCauseFunc
}

// NewRunning returns what runs on a node that has just begun. The lease is after
// how long a silent node is taken for dead.
func NewRunning(lease time.Duration) *Running {
	return &Running{lease: lease, attempts: map[string]*attempt{}, held: map[*streams.Delivery]struct{}{}}
}

// Count returns how many attempts there are, those included whose claim or
// outcome is under way.
func (r *Running) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.attempts)
}

// hold keeps a delivery alive until it is released.
func (r *Running) hold(d *streams.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[d] = struct{}{}
}

// release forgets a delivery.
func (r *Running) release(d *streams.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, d)
}

// begin notes an attempt that is about to be claimed.
func (r *Running) begin(job, token string, d *streams.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts[token] = &attempt{job: job, delivery: d}
}

// refused forgets an attempt that did not come to be. Its delivery may be
// another's by now.
func (r *Running) refused(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.attempts, token)
}

// end forgets an attempt and returns the delivery that it has by now, which is
// no longer kept alive. It returns nil if there is none.
func (r *Running) end(token string) *streams.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[token]
	if a == nil {
		return nil
	}
	delete(r.attempts, token)
	delete(r.held, a.delivery)
	return a.delivery
}

// adopt makes d the delivery of an attempt in place of the one it had.
func (r *Running) adopt(token string, d *streams.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[token]
	if a == nil {
		return
	}
	delete(r.held, a.delivery)
	a.delivery = d
	r.held[d] = struct{}{}
}

// adopted reports whether d is the delivery of an attempt.
func (r *Running) adopted(d *streams.Delivery) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.attempts {
		if a.delivery == d {
			return true
		}
	}
	return false
}

// Runs reports whether the node runs a job under a token. An attempt counts
// while its claim is under way, while it has the lease, for one lease after it
// lost it, and as long as its outcome is in hand.
func (r *Running) Runs(job, token string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[token]
	return a != nil && a.job == job && !r.abandoned(a)
}

func (r *Running) abandoned(a *attempt) bool {
	return !a.returned && !a.lost.IsZero() && time.Since(a.lost) > r.lease
}

// leaseLost notes that the handler of an attempt goes on without a lease.
func (r *Running) leaseLost(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.attempts[token]; a != nil && a.lost.IsZero() {
		a.lost = time.Now()
	}
}

// returned notes that the handler has returned: the outcome is in hand.
func (r *Running) returned(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.attempts[token]; a != nil {
		a.returned = true
	}
}

// endBy notes how to end the handler of an attempt, which may be due already.
func (r *Running) endBy(token string, end context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[token]
	if a == nil {
		return
	}
	if a.end = end; a.ended != nil {
		end(a.ended)
	}
}

// Cancel ends the handler of the attempt that runs a job under a token.
func (r *Running) Cancel(job, token, cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[token]
	if a == nil || a.job != job || a.ended != nil {
		return
	}
	a.ended = fmt.Errorf("%w: %s", ErrCancelled, cause)
	if a.end != nil {
		a.end(a.ended)
	}
}

// KeepAlive holds off the redelivery of everything that is held, every third
// of the lease, until ctx ends. An attempt that was abandoned is not held any
// more, so that another node gets it.
func (r *Running) KeepAlive(ctx context.Context) {
	tick := time.NewTicker(r.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, d := range r.toKeep() {
				_ = d.Progress() // what is lost comes back, and is adopted
			}
		}
	}
}

func (r *Running) toKeep() []*streams.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.attempts {
		if r.abandoned(a) {
			delete(r.held, a.delivery)
		}
	}
	list := make([]*streams.Delivery, 0, len(r.held))
	for d := range r.held {
		list = append(list, d)
	}
	return list
}
