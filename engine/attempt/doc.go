// Package attempt is one try at running a job, on this node: from a delivery to
// its acknowledgement.
//
//	item ──▶ claim ──▶ input ──▶ middleware ▶ handler ──▶ outcome ──▶ finish ──▶ acknowledge
//	                                 │
//	                       says: lines, progress, that it lives
//
// The files, in the order of an attempt's way:
//
//	runner.go      takes items and has their jobs claimed and finished
//	running.go     what runs on this node, and the deliveries to keep alive
//	crew.go        goroutines that are used again
//	handle.go      what a handler runs under, and when it is not started
//	input.go       an input that is not part of the record
//	middleware.go  what is around a handler
//	current.go     what a handler knows of its job, and can say
//	report.go      how what it says is stored
//	errors.go      why its context ends, and the errors by which it decides
//	outcome.go     what its end leads to
//
// Start reading at [Runner.Take].
//
// What becomes of the job is decided by package store, one write for the claim
// and one for the outcome; this package decides when they are made, and never
// acknowledges before the second. So wherever the process dies, the item comes
// back, and the record says what is to be done.
//
// Users meet all this in package engine, so that is what errors begin with.
package attempt
