// Package scheduler makes the jobs of schedules when it is time for them. The owner
// runs a [Scheduler].
//
//	definition ──▶ tick.Advance ──▶ jobs made, declined, admitted
//	cursor ──────▶      ▲      └──▶ cursor, by its revision
//	                    │
//	     ends of jobs, jobs that want a turn: heard, and polled in case nobody heard
//
//	stored.go       definitions as people store them
//	definitions.go  what they say now, to who is about to run a job
//	cursor.go       cursors as the engine stores them
//	follow.go       how the owner comes to know of both
//	scheduler.go    whose time it is
//	course.go       one schedule
//	step.go         what is decided and stored
//	carry.go        what is carried out
//	hear.go         what jobs say
//	wants.go        jobs that wait for a turn
//
// What is decided is pure, and lies in the package tick. Start reading at
// [Scheduler.Run], then at the method step.
//
// # What is promised
//
// A definition is written by people only, a cursor by the engine only, each by its
// revision. Two owners at once make the same jobs: what a tick leads to follows from
// the stored cursor, or was stored in it before it was done.
package scheduler
