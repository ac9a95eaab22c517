// Package plan decides which nodes get what: the parts of a broadcast, the shards
// of a sharded job, and the jobs that any of some nodes may run. It does no I/O.
//
// Start reading at [Matching], then at [Snapshot] and [Places].
package plan
