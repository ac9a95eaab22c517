// Package enginetest runs your jobs in a test: the real engine on a real NATS
// server, in the test's own process, on a virtual clock, with every fault that
// a process and its network can have.
//
//	func TestWelcome(t *testing.T) {
//		enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
//			env.Worker(Welcome)
//			job := enginetest.Submit(env, Welcome, "ann@example.com")
//			if got := enginetest.Result(env, job); got != "sent" {
//				t.Errorf("got %q, want sent", got)
//			}
//		})
//	}
//
// Start reading at [Run], then at [Process].
//
// # Time
//
// The clock is that of [testing/synctest]: it starts at midnight on 1 January
// 2000, UTC, stands still while anybody has something to do, and moves on to
// the next moment at which somebody has. No test needs a pause that is "long
// enough": [Env.Await] waits for a job, [Env.Advance] for a time.
//
// Processes go on renewing their leases meanwhile. With a worker and an owner a
// virtual hour takes 0.3 to 1 s of real time; a longer lease makes idle hours
// cheaper, such as Options{Lease: time.Minute}.
//
// So nothing in the test may wait for what is outside of it: a socket, also one
// of the same machine, a child process, a channel made before the test. While it
// does, time stands still. Give the handlers fakes of what they talk to. For the
// same reason a test with a virtual clock cannot be parallel and has no
// subtests: call Run in each subtest instead.
//
// # Processes
//
// A [Process] is a program of its own, as far as NATS can tell: it has its own
// connection and, if it works, its own ID among the nodes. It can be stopped,
// killed, frozen, cut off and started again, or meet a [Fault] at any single
// write. What Go cannot do is to stop a goroutine: the handlers of a killed or
// frozen process go on in the memory of the test, and only what they tell NATS
// is lost or late.
//
// Nothing here is a mock, and nothing in the engine knows of it.
package enginetest
