package publish

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// silence is for how long nothing was heard of JetStream, or of somebody who stores,
// although it was asked.
//
// A connection may be up and worth nothing: the server at its other end is cut off
// from the others of its cluster and leads no stream, or the network forgot the
// connection, which the client library finds out after minutes. Then the way out
// is another connection, to another server if there is one.
type silence struct {
	since atomic.Int64 // when the first message after the last answer was sent, in ns; 0 for none
}

// asked notes that a message was sent.
func (s *silence) asked(at time.Duration) {
	if s.since.Load() == 0 {
		s.since.CompareAndSwap(0, max(int64(at), 1))
	}
}

// over notes that JetStream has answered, or that the connection is another one.
func (s *silence) over() {
	if s.since.Load() != 0 {
		s.since.Store(0)
	}
}

// longer reports whether the silence has lasted for patience or longer.
func (s *silence) longer(now, patience time.Duration) bool {
	since := s.since.Load()
	return since != 0 && now-time.Duration(since) >= patience
}

// escape makes another connection if nothing was heard of JetStream for too long, or
// nothing could be stored: a server that led a stream before it was cut off may answer
// what is asked about that, for as long as it believes that it leads it. The client
// library takes the next server that it knows of.
func (p *Publisher) escape() {
	if !p.isSilent() || p.nc.Status() != nats.CONNECTED {
		return
	}
	p.hush()
	_ = p.nc.ForceReconnect() // fails only on a closed connection
}

// isSilent reports whether the connection seems to be worth nothing.
func (p *Publisher) isSilent() bool {
	now := time.Since(p.began)
	return p.silence.longer(now, p.opts.Silence) || p.unstored.longer(now, p.opts.Silence)
}

// hush notes that the connection is another one.
func (p *Publisher) hush() {
	p.silence.over()
	p.unstored.over()
}

// heard notes an answer, which may be to a message that is to be stored. If it is only
// the server's word that it reaches nobody, and that goes on for too long, it tells
// watch.
func (p *Publisher) heard(msg *nats.Msg, store bool) {
	if !noResponders(msg) && !unavailable(msg) {
		p.silence.over()
		if store {
			p.unstored.over()
		}
		return
	}
	if store {
		p.unstored.asked(time.Since(p.began))
	}
	if p.isSilent() {
		select {
		case p.silent <- struct{}{}:
		default: // it was told
		}
	}
}

// unavailable reports whether an answer says that there is no leader that could
// answer. What is refused for any other reason is refused by somebody. It looks at
// every answer, so it decodes none: a refusal is short, and has its code inside.
func unavailable(msg *nats.Msg) bool {
	return len(msg.Data) < 512 && bytes.Contains(msg.Data, []byte(`"err_code":10008,`))
}
