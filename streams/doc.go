// Package streams knows every asset of Millrace in JetStream and moves the
// messages that drive work.
//
//	assets     names, subjects and configurations, as data      assets.go
//	Ensure     creates or updates them, from many processes     ensure.go, server.go
//	bootstrap  the lease under which streams are edited         bootstrap.go
//	Captured   the stream of events on users' plain subjects    capture.go
//	Envelope   what every message carries, whatever its type    envelope.go
//	Work       the work queue: offer, pull, keep alive, ack     work.go, pull.go
//	Timers     what is due later: set, cancel, read, delete     timer.go, count.go
//	Clock      the time of the server                           clock.go
//	Limits     whether there is room for more jobs              limits.go, retention.go
//
// Start reading at [Namespace], then at [Work]. The package does not know what
// a job is: an item is the bytes of a record and the revision that it had.
//
// An item may be delivered twice, late, or never; the record in the jobs bucket
// alone decides what a delivery means.
package streams
