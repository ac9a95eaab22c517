package enginetest

import (
	"os"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
)

// StopServer stops NATS in good order. Every process is without it until
// [Env.StartServer].
func (env *Env) StopServer() {
	env.t.Helper()
	env.mustRun("stop server")
	env.stopServer()
}

// KillServer ends NATS without a word, as SIGKILL would. After [Env.StartServer]
// it finds its files as they are at this moment.
func (env *Env) KillServer() {
	env.t.Helper()
	env.mustRun("kill server")
	env.reroute(nil) // so that nobody writes while the files are copied
	synctest.Wait()
	dir := env.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(env.dir)); err != nil {
		env.t.Fatalf("enginetest: kill server: %v", err)
	}
	env.stopServer()
	env.dir = dir
}

// StartServer starts NATS again, with the data that it had. The processes find it
// by themselves, within a second.
func (env *Env) StartServer() {
	env.t.Helper()
	if env.srv != nil {
		env.t.Fatal("enginetest: start server: it runs: stop or kill it first")
	}
	env.srv = natstest.Start(env.t, env.dir)
	env.reroute(env.srv)
}

// mustReach waits until the test itself has its connection back, and fails the
// test if that cannot be.
func (env *Env) mustReach(what string) {
	env.t.Helper()
	env.mustRun(what)
	for tries := 0; !env.Conn().IsConnected(); tries++ {
		if tries == 1000 {
			env.t.Fatalf("enginetest: %s: the client is cut off: let it connect first", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (env *Env) mustRun(what string) {
	env.t.Helper()
	if env.srv == nil {
		env.t.Fatalf("enginetest: %s: the server is stopped: start it first", what)
	}
}

// stopServer stops NATS and waits until it is gone.
func (env *Env) stopServer() {
	srv := env.srv
	env.srv = nil
	env.reroute(nil)
	natstest.Stop(srv)
	synctest.Wait()
}

// reroute breaks all connections, and leads new ones to a server, or nowhere.
func (env *Env) reroute(srv *server.Server) {
	for _, p := range env.processes {
		p.life.link.Reroute(srv)
	}
}
