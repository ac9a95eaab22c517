package natstest

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Listening is a JetStream server on a port of the loopback interface. It can
// be stopped and started again on the same port and data, as often as a test
// likes. Its methods are for one goroutine at a time.
type Listening struct {
	t    testing.TB
	dir  string
	port int
	srv  *server.Server
}

// StartListening runs a JetStream server on a [Port] that keeps its data in dir until
// the test ends. It does not work in a bubble.
func StartListening(t testing.TB, dir string) *Listening {
	t.Helper()
	l := &Listening{t: t, dir: dir, port: Port(t)}
	l.Start()
	return l
}

// Start runs the server again after [Listening.Stop].
func (l *Listening) Start() {
	l.t.Helper()
	l.srv = start(l.t, &server.Options{Host: "127.0.0.1", Port: l.port, StoreDir: l.dir})
}

// Stop ends the server and waits until it is gone. Its data stays.
func (l *Listening) Stop() { stop(l.srv) }

// Server returns the server as it runs now; after a restart it is another one.
func (l *Listening) Server() *server.Server { return l.srv }

// URL returns where the server listens. It is the same for its whole life.
func (l *Listening) URL() string { return l.srv.ClientURL() }

// Connect is like the function [Connect], over the network.
func (l *Listening) Connect(opts ...nats.Option) *nats.Conn {
	l.t.Helper()
	return dial(l.t, l.URL(), opts)
}
