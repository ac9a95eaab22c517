package publish

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// watch fails what waited too long and what was in flight when the connection
// broke, until the publisher is closed.
func (p *Publisher) watch() {
	defer close(p.watched)
	late := fmt.Errorf("publish: %w: no answer within %v", ErrUnknown, p.opts.Timeout)
	for {
		select {
		case _, ok := <-p.status:
			if !ok {
				p.mu.timer.Stop()
				return
			}
			// Reconnects is read first: should the connection come back in
			// between, its own event follows.
			p.hush()
			life, up := p.nc.Stats().Reconnects, p.nc.Status() == nats.CONNECTED
			p.fail(errBroken, func(c *call) bool { return c.life < life || c.life == life && !up })
		case <-p.silent:
			p.escape()
		case <-p.mu.timer.C:
			p.fail(late, func(c *call) bool { return time.Since(p.began)-c.sent >= p.opts.Timeout })
			p.rearm()
			p.escape()
		}
	}
}

// fail ends the oldest calls with err, up to the first that does not match.
func (p *Publisher) fail(err error, match func(*call) bool) {
	for {
		p.mu.Lock()
		w := &p.mu.calls
		if w.open == 0 || !match(w.at(w.head)) {
			p.mu.Unlock()
			return
		}
		c, _ := w.take(w.head)
		p.makeRoom()
		p.mu.Unlock()
		c.fail(err)
	}
}

// rearm sets the timer for the oldest call, if there is one.
func (p *Publisher) rearm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.mu.calls
	if p.mu.armed = w.open > 0; p.mu.armed {
		p.mu.timer.Reset(w.at(w.head).sent + p.opts.Timeout - time.Since(p.began))
	}
}
