package kv

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats.go"
)

// Keep renews the lease until ctx ends, and then returns nil. It returns
// [ErrLeaseLost] when the lease is lost. It must run once.
//
// It renews every third of the TTL, again after a second if no answer came, and
// at once after a reconnect: a server that was away lets keys that expired
// meanwhile live for 250 ms, and a renewal in that time keeps them.
func (l *Lease) Keep(ctx context.Context) error {
	nc := l.bucket.pub.Conn()
	status := nc.StatusChanged()
	defer nc.RemoveStatusListener(status)
	answers := make(chan error, 16) // more than can be in flight
	due := time.NewTimer(l.untilDue())
	defer due.Stop()
	renew := func() {
		l.renew(answers)
		due.Reset(min(time.Second, l.opts.TTL/3))
	}
	warned := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.ctx.Done():
			return l.bucket.failed("keep", l.key, ErrLeaseLost)
		case s := <-status:
			if s == nats.CONNECTED {
				renew()
			} else {
				l.interrupted()
			}
		case <-due.C:
			renew()
		case err := <-answers:
			switch {
			case err == nil:
				due.Reset(l.untilDue())
				warned = false
			case conflict(err) && l.settle(ctx):
				renew()
			case !conflict(err) && !warned: // once for each time without
				l.opts.Logger.Warn("lease not renewed", "key", l.key, "err", err)
				warned = true
			}
		}
	}
}

// untilDue returns how long it is to the next renewal.
func (l *Lease) untilDue() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.mu.renewed.Add(l.opts.TTL / 3))
}

// renew sends a renewal, unless the lease has ended. Its outcome goes to answers.
func (l *Lease) renew(answers chan<- error) {
	l.mu.Lock()
	held, revision := l.valid(), l.mu.revision
	l.mu.Unlock()
	if !held {
		return
	}
	sent := time.Now()
	l.bucket.UpdateAsync(l.key, l.held, revision, func(rev uint64, err error) {
		if err == nil {
			l.extend(sent, rev)
		}
		select {
		case answers <- err:
		default: // nobody listens any more
		}
	}, WriteOptions{TTL: l.opts.TTL})
}

// extend records an acknowledged renewal. One that comes after the end of the
// lease changes nothing.
func (l *Lease) extend(sent time.Time, revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.valid() {
		return
	}
	l.mu.revision = max(l.mu.revision, revision)
	if !sent.After(l.mu.renewed) {
		return
	}
	if l.mu.broken || sent.Sub(l.mu.renewed) > l.pulse() {
		l.mu.since = sent
	}
	l.mu.renewed, l.mu.broken = sent, false
	l.mu.timer.Reset(time.Until(l.deadline()))
}

// interrupted records that the connection broke.
func (l *Lease) interrupted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.broken = true
}

// settle finds out what a conflict means. It reports whether the lease can be
// renewed at once, at the revision that it has read: an earlier renewal was
// stored, though its answer did not come. The lease is lost if somebody else
// has the key, or nobody. If it cannot read, the next renewal asks again.
func (l *Lease) settle(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := l.bucket.last(ctx, l.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		if !errors.Is(err, publish.ErrUnsent) {
			l.opts.Logger.Warn("lease not read", "key", l.key, "err", err)
		}
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || !l.owns(s) {
		l.end()
		return false
	}
	l.mu.revision = max(l.mu.revision, s.sequence)
	return true
}
