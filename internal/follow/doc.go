// Package follow reads a stream of JetStream from one sequence on, for ever or
// up to another, whatever happens to the server and the connection meanwhile.
//
// Start reading at [Run], its only function. A session (session.go) is the life
// of one consumer. Whatever goes wrong ends it, and the next one goes on behind
// the last message that was visited; so there is one way to recover, and it is
// the way in which everything begins.
//
// The client's ordered consumer would make a consumer for each fetch.
//
//	consumer ──▶ pull ──▶ message ──▶ old enough? ──▶ visit
//	    ▲          │
//	    └──────────┴── lost, deaf, gone or reconnected: behind the last visited
//
// The consumer counts what it delivers, and the server says every two seconds
// at least how far it is. So a message that was lost on the way, and a consumer
// that is not there any more, are found within seconds.
//
// What is not in the stream any more is not visited: on a stream with one
// message a subject, such as a bucket of history 1, a reader sees the last of
// several writes, and of those before it only what it was in time for.
package follow
