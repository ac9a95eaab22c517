// Package proxy is one TCP link that can be cut, that can hold everything back,
// and that can be slow.
//
// Start reading at [Listen]; what happens to bytes is in weather.pass.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/wait"
)

// Link passes what arrives at [Link.Addr] on to a target, and back. It is safe
// for concurrent use.
type Link struct {
	listener net.Listener
	target   string
	weather  *weather
	done     sync.WaitGroup

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool  // both ends of each connection
	life context.Context    // of the connections that are open: a cut ends it
	end  context.CancelFunc // of life
}

// Listen makes a link to target, a host and a port, on a free port of the
// loopback interface. Nothing is dialled before somebody connects.
func Listen(target string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: listen: %w", err)
	}
	l := &Link{listener: listener, target: target, weather: fine(), open: map[net.Conn]bool{}}
	l.life, l.end = context.WithCancel(context.Background())
	l.done.Go(l.accept)
	return l, nil
}

// Addr is where the link listens, a host and a port.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Cut closes every connection at both ends; what was on its way is lost. Until
// the link heals, new ones are reset as soon as they are made: a port that
// refuses is a port that somebody else may get.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	l.end()
	for conn := range l.open {
		reset(conn)
	}
}

// Drop passes nothing any more, in neither direction, and neither the end of a
// connection. Connections stay open and new ones are taken, without an answer.
// What is sent fills the buffers of the system, as it does when a cable is
// pulled, and arrives when the link heals. What was being written when Drop was
// called may still arrive.
func (l *Link) Drop() { l.weather.set(func(w *weather) { w.held = true }) }

// Delay lets each chunk of bytes pass d after it arrived, in both directions.
// The order stays, and so does the throughput.
func (l *Link) Delay(d time.Duration) { l.weather.set(func(w *weather) { w.delay = d }) }

// Heal makes the link as good as new. What was held back or is late passes now.
func (l *Link) Heal() {
	l.mu.Lock()
	if l.cut {
		l.cut = false
		l.life, l.end = context.WithCancel(context.Background())
	}
	l.mu.Unlock()
	l.weather.set(func(w *weather) { w.held, w.delay = false, 0 })
}

// Close closes the link and all of its connections, and waits until nothing is
// left of it. It must not be healed afterwards.
func (l *Link) Close() {
	l.Cut()
	_ = l.listener.Close() // the port is given back either way
	l.done.Wait()
}

// breath is how long to wait for a connection after one could not be taken.
const breath = 10 * time.Millisecond

// accept serves connections until the link is closed.
func (l *Link) accept() {
	for {
		conn, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // there are too many open files
			wait.For(context.Background(), breath)
			continue
		}
		l.done.Go(func() { l.serve(conn) })
	}
}

// serve passes what is said on a connection, in both directions, until both
// have ended or one is broken.
func (l *Link) serve(near net.Conn) {
	life, ok := l.enter(near)
	defer l.leave(near)
	if !ok || l.weather.open(life) != nil {
		return
	}
	far, err := (&net.Dialer{}).DialContext(life, "tcp", l.target)
	if err != nil {
		reset(near)
		return
	}
	defer l.leave(far)
	if _, ok := l.enter(far); !ok {
		return
	}
	var both sync.WaitGroup
	pass := func(from, to net.Conn) {
		if err := l.weather.pass(life, from, to); err != nil {
			reset(from)
			reset(to)
			return
		}
		_ = to.(*net.TCPConn).CloseWrite() // a broken one is found by the other direction
	}
	both.Go(func() { pass(near, far) })
	both.Go(func() { pass(far, near) })
	both.Wait()
}

// enter notes an end of a connection, or resets it if the link is cut. It
// returns how long the connection may live.
func (l *Link) enter(conn net.Conn) (life context.Context, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		reset(conn)
		return nil, false
	}
	l.open[conn] = true
	return l.life, true
}

// leave closes an end of a connection and forgets it.
func (l *Link) leave(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
	_ = conn.Close() // it may be closed already
}

// reset closes a connection so that what is on its way is lost.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0) // it may be closed already, as may be
	_ = conn.Close()
}
