package natstest

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
)

// patience is how long a server or a connection may take to come up. It is far
// more than they need, for the sake of crowded machines.
const patience = 20 * time.Second

// The server's access-time ticker is shared by the whole process. Starting it
// here keeps it out of every bubble; inside one it would hold time still.
func init() { ats.Register() }

// Bubble runs f in a synctest bubble with a JetStream server of its own. Time
// in the bubble is virtual: it moves on when every goroutine waits, and what
// still runs at the end fails the test. Tests that use Bubble must not call
// t.Parallel, and clients must connect in process: sockets stop the clock.
func Bubble(t *testing.T, f func(t *testing.T, srv *server.Server)) {
	t.Helper()
	mustBeAlone(t)
	dir := t.TempDir()
	emptyTimerPool()
	t.Cleanup(emptyTimerPool)
	synctest.Test(t, func(t *testing.T) { f(t, Start(t, dir)) })
}

// mustBeAlone fails a test that is parallel, or becomes so: the NATS client's
// timers would change bubbles, which ends the process.
func mustBeAlone(t *testing.T) {
	t.Helper()
	defer func() {
		if recover() != nil {
			t.Fatal("natstest: a test with a virtual clock cannot be parallel: remove t.Parallel")
		}
	}()
	t.Setenv("MILLRACE_VIRTUAL_CLOCK", "1") // what package testing refuses parallel tests
}

// Start runs a JetStream server that keeps its data in dir until the test ends.
// It has no port; clients come by [Connect].
func Start(t testing.TB, dir string) *server.Server {
	t.Helper()
	return start(t, &server.Options{DontListen: true, StoreDir: dir})
}

// start is StartWith for a JetStream server.
func start(t testing.TB, opts *server.Options) *server.Server {
	t.Helper()
	opts.JetStream = true
	return StartWith(t, opts)
}

// StartWith runs a server until the test ends. It fills in what all share; what the
// server stores is in a folder of the test if opts names none.
func StartWith(t testing.TB, opts *server.Options) *server.Server {
	t.Helper()
	opts.NoLog, opts.NoSigs = true, true
	if opts.StoreDir == "" {
		opts.StoreDir = t.TempDir()
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("natstest: make server: %v", err)
	}
	srv.Start()
	t.Cleanup(func() { stop(srv) })
	if !srv.ReadyForConnections(patience) {
		t.Fatalf("natstest: start server: not ready after %v", patience)
	}
	return srv
}

// stop ends a server and waits for it. Stopping twice does no harm.
func stop(srv *server.Server) {
	if inBubble() {
		calm(srv)
	}
	srv.Shutdown()
	srv.WaitForShutdown()
}

// Stop ends a server, of which the links know nothing any more, and waits for it.
func Stop(srv *server.Server, links ...*Link) {
	for _, l := range links {
		l.Reroute(nil)
	}
	stop(srv)
}

// calm breaks all connections to a server and lets what is under way come to its
// end. A server with pulls that wait sleeps under a lock when it stops, and a
// request that waits for the lock would keep the bubble's clock from moving.
func calm(srv *server.Server) {
	conns, err := srv.Connz(nil)
	if err != nil {
		return // it has stopped
	}
	for _, c := range conns.Conns {
		_ = srv.DisconnectClientByID(c.Cid) // it may have left
	}
	synctest.Wait()
}

// inBubble reports whether the caller is in a bubble, where the clock begins at a
// time that has long passed elsewhere.
func inBubble() bool { return time.Now().Year() < 2020 }

// Connect returns a connection to srv in this process, with the options that
// Millrace asks of every connection: it reconnects for ever and never buffers
// writes while it is away. It is closed when the test ends. Further options
// override these.
func Connect(t testing.TB, srv *server.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return dial(t, "", append([]nats.Option{nats.InProcessServer(srv)}, opts...))
}

// dial connects to url, which is not used if opts name a server in this process.
func dial(t testing.TB, url string, opts []nats.Option) *nats.Conn {
	t.Helper()
	all := append([]nats.Option{
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
		nats.Timeout(patience),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // tests break connections on purpose
	}, opts...)
	nc, err := nats.Connect(url, all...)
	if err != nil {
		t.Fatalf("natstest: connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// emptyTimerPool forgets the timers that the NATS client pools: a timer must
// not enter, leave or change bubbles. It takes two collections.
func emptyTimerPool() {
	runtime.GC()
	runtime.GC()
}
