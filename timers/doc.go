// Package timers finds the owner, and lets it fire what is due.
//
// The owner is the one node that keeps what nobody else keeps. It holds the
// owner's lease, and runs the loops that it is given only while it does.
//
//	Stand     who is the owner                            owner.go, candidate.go
//	Run       fires what is due                           run.go, load.go, fire.go
//
// A deputy is a candidate that stands only while no node serves. Candidates hear
// the republished leases, so a thousand of them cost the server no consumer. Of a
// timer the owner keeps when it is due and where it is stored, 16 bytes (heap.go),
// and reads the rest when it fires. So there is no horizon beyond which timers are
// loaded later, and none depends on the minute under which it is filed: that only
// serves a fast start after a takeover, when those around now are read first. Timers
// that were cancelled or replaced stay in memory until they would be due; if that is
// most of them, all are read again.
//
// Start reading at [Stand], then at [Run].
//
// # What is promised
//
// Nothing is safe because there is one owner: two that believe to be it, one
// that was frozen and one whose key was deleted by hand do what is done anyway,
// twice. The records of the jobs decide. Leadership only avoids double work.
//
// No timer fires early, by the server's time. Each fires at least once, unless
// it is cancelled or replaced before: it is deleted after it has fired, by its
// sequence, so a timer that replaced it meanwhile stays.
package timers
