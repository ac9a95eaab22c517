package kv

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A process that was frozen past its deadline wakes up to a lease that is lost,
// even before the timer fires, and a late answer does not bring it back.
func TestLeaseAfterFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := &taking{opts: LeaseOptions{TTL: 6 * time.Second}.withDefaults()}
		l := taken.lease(t.Context(), 1, time.Now())
		sent := time.Now()
		l.mu.timer.Stop() // frozen
		time.Sleep(5499 * time.Millisecond)
		if !l.Valid() {
			t.Error("lost before its deadline")
		}
		time.Sleep(time.Millisecond)
		l.extend(sent.Add(2*time.Second), 2)
		if l.Valid() || !errors.Is(context.Cause(l.Context()), ErrLeaseLost) {
			t.Errorf("valid %v, cause %v", l.Valid(), context.Cause(l.Context()))
		}
	})
}

// A lease is unbroken since the renewal after the last break: one that came
// late, or a broken connection.
func TestUnbroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := &taking{opts: LeaseOptions{TTL: 6 * time.Second}.withDefaults()}
		l := taken.lease(t.Context(), 1, time.Now())
		defer l.lose()
		want := func(d time.Duration) {
			t.Helper()
			if got := l.Unbroken(); got != d {
				t.Errorf("unbroken for %v, want %v", got, d)
			}
		}
		renew := func() { l.extend(time.Now(), 2) }
		time.Sleep(4 * time.Second)
		want(4 * time.Second)
		renew()
		want(4 * time.Second)
		time.Sleep(4*time.Second + 1)
		want(0)
		renew()
		want(0)
		time.Sleep(time.Second)
		want(time.Second)
		l.interrupted()
		want(0)
		renew()
		time.Sleep(time.Second)
		want(time.Second)
	})
}
