package streams

import (
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
)

// What only this package knows and its tests need.
const BootstrapTTL = bootstrapTTL

var CheckLevel = checkLevel

// ProbeTime gives whoever has a namespace that long to say so, until undo is called.
func ProbeTime(d time.Duration) (undo func()) {
	was := probeTime
	probeTime = d
	return func() { probeTime = was }
}

// ParseReply reads the reply subject of a delivery.
func ParseReply(reply string) (Delivery, error) {
	var d Delivery
	err := d.parseReply(reply)
	return d, err
}

// Message returns a timer as it is stored.
func (t *Timers) Message(timer Timer) (*nats.Msg, error) { return t.message(timer) }

// Parse reads what Message returns.
func (t *Timers) Parse(msg *nats.Msg) (Timer, error) { return t.parse(msg) }

// StepWallClock makes it look as if the machine's clock had been set by so much
// since the last measurement, in whole seconds.
func StepWallClock(c *Clock, by time.Duration) {
	r := *c.last.Load()
	// What is in a time.Time is known from its comments. A test cannot set the
	// clock of the machine that it runs on.
	heard := (*struct {
		wall uint64 // with a monotonic clock reading: 1 bit, 33 bits of seconds, 30 bits of nanoseconds
		ext  int64  // without one: seconds
	})(unsafe.Pointer(&r.heard))
	if heard.wall>>63 == 1 {
		heard.wall -= uint64(by/time.Second) << 30
	} else {
		heard.ext -= int64(by / time.Second)
	}
	c.last.Store(&r)
}
