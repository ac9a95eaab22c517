package streams

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/publish"
)

// Clock tells the time of the NATS server, with which due times are compared: a
// machine whose clock is wrong fires nothing early. It is safe for concurrent
// use.
//
// It asks the server for the time and counts on from there by this process's
// monotonic clock, so setting the machine's clock changes nothing. Since the
// answer takes time to arrive, the clock is behind the server's by that time. It
// is not ahead of it, but for what the two drift apart until the next measurement, a
// minute later. So nothing fires early. What the owner fires carries its due time,
// and a worker whose clock is further behind believes it.
type Clock struct {
	ns   Namespace
	pub  *publish.Publisher
	last atomic.Pointer[reading] // nil until measured
	turn *semaphore.Weighted     // held by whoever measures for all
}

// reading is what the server's clock showed when its answer arrived, or before.
type reading struct {
	server time.Time
	heard  time.Time // by this machine, with the monotonic clock
}

const (
	// clockAge is after how long the server's time is measured again.
	clockAge = time.Minute
	// clockSamples is how often the server is asked for one measurement.
	clockSamples = 5
)

// NewClock returns a clock that was not measured yet.
func NewClock(ns Namespace, pub *publish.Publisher) *Clock {
	return &Clock{ns: ns, pub: pub, turn: semaphore.NewWeighted(1)}
}

// Now returns the time of the server, or a little less, in UTC. Until it is
// measured for the first time that is the time of this machine.
func (c *Clock) Now() time.Time {
	r := c.last.Load()
	if r == nil {
		return time.Now().UTC()
	}
	return r.server.Add(time.Since(r.heard))
}

// Measure asks the server for its time. If the server does not answer, the clock
// counts on as before.
func (c *Clock) Measure(ctx context.Context) error {
	var best *reading
	for range clockSamples {
		r, err := c.sample(ctx)
		if err != nil && best == nil {
			return fmt.Errorf("streams: measure the time of the server: %w", explain(err))
		}
		if err != nil {
			break // one is enough
		}
		if best == nil || r.server.Sub(best.server) > r.heard.Sub(best.heard) {
			best = r
		}
	}
	c.last.Store(best)
	return nil
}

// Fresh measures, unless somebody has done so within the last minute.
func (c *Clock) Fresh(ctx context.Context) error {
	if c.fresh() {
		return nil
	}
	if c.turn.Acquire(ctx, 1) != nil {
		return fmt.Errorf("streams: measure the time of the server: %w", context.Cause(ctx))
	}
	defer c.turn.Release(1)
	if c.fresh() {
		return nil
	}
	return c.Measure(ctx)
}

func (c *Clock) fresh() bool {
	r := c.last.Load()
	return r != nil && time.Since(r.heard) < clockAge
}

// Run measures now, every minute, and whenever the connection is there again,
// until ctx ends. The only other end is that of the connection.
func (c *Clock) Run(ctx context.Context) error {
	back := c.pub.Conn().StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.pub.Conn().RemoveStatusListener(back)
	for ctx.Err() == nil {
		wait := clockAge
		err := c.Measure(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, publish.ErrClosed), errors.Is(err, nats.ErrConnectionClosed):
			return err
		case err != nil:
			wait = requestTime
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-again.C:
		case <-back:
		}
		again.Stop()
	}
	return nil
}

// sample asks once.
func (c *Clock) sample(ctx context.Context) (*reading, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var answer struct {
		publish.Refusal
		Time time.Time `json:"ts"`
	}
	err := c.pub.Ask(ctx, "STREAM.INFO."+c.ns.bucketStream(Leases), nil, &answer)
	if err == nil && answer.Time.IsZero() {
		err = errors.New("the answer has no time")
	}
	return &reading{answer.Time.UTC(), time.Now()}, err
}
