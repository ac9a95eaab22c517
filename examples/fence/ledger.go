package main

import (
	"errors"
	"fmt"
	"sync"
)

// errOvertaken is what a store says to an attempt that is not the last one.
var errOvertaken = errors.New("a newer attempt was here")

// ledger stands for a store of yours: a table with a column for the fence, in
// which a payment is one statement, such as
//
//	INSERT INTO payments (job, fence, amount) VALUES ($1, $2, $3)
//	ON CONFLICT (job) DO UPDATE SET fence = $2, amount = $3 WHERE payments.fence <= $2
type ledger struct {
	mu       sync.Mutex
	payments map[string]payment // by job
}

type payment struct {
	fence  uint64
	amount int
}

// pay books the payment of a job once, however often it is told. It refuses an
// attempt whose fence is smaller than one that it has seen.
func (l *ledger) pay(job string, fence uint64, amount int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.payments[job]; fence < last.fence {
		return fmt.Errorf("%w: its fence is %d, this one's %d", errOvertaken, last.fence, fence)
	}
	l.payments[job] = payment{fence, amount}
	return nil
}

// get returns the payment of a job.
func (l *ledger) get(job string) payment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.payments[job]
}
