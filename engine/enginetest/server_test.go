package enginetest_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/engine/enginetest"
)

// NATS goes away while a job runs, in good order or not, for a moment or for
// longer than a lease. What was stored is there afterwards, and everybody comes
// back.
func TestServerAway(t *testing.T) {
	ends := map[string]func(*enginetest.Env){"stopped": (*enginetest.Env).StopServer, "killed": (*enginetest.Env).KillServer}
	for how, end := range ends {
		for _, away := range []time.Duration{0, 3 * time.Second, time.Minute} {
			t.Run(how+" for "+away.String(), func(t *testing.T) {
				enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
					worker := env.Worker(where)
					id := begun(env)
					other := enginetest.Submit(env, noop, 1).ID
					end(env)
					env.Advance(away)
					if worker.Conn().IsConnected() {
						t.Error("a worker is connected to a server that is gone")
					}
					env.StartServer()
					if info := env.Await(id); info.State != "succeeded" || info.Failures != 0 {
						t.Errorf("the job is %s with %d failures", info.State, info.Failures)
					}
					env.Worker(noop)
					if info := env.Await(other); info.State != "succeeded" {
						t.Errorf("the other job is %s", info.State)
					}
				})
			})
		}
	}
}

// A server may go away again and again, and a test may end without one.
func TestServerAwayAgain(t *testing.T) {
	enginetest.Run(t, func(_ *testing.T, env *enginetest.Env) {
		env.Worker(noop)
		for range 3 {
			env.KillServer()
			env.StartServer()
			env.StopServer()
			env.StartServer()
			env.Await(enginetest.Submit(env, noop, 1).ID)
		}
		env.KillServer()
	})
}
