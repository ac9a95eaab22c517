// Package kv keeps typed values in JetStream buckets, and leases in such a
// bucket.
//
// A [Bucket] is a JetStream stream KV_<bucket> that keeps the last message of
// each subject $KV.<bucket>.<key>. Its revisions are sequences of the stream, so
// they grow over the whole bucket. The bucket is made elsewhere, with
// AllowMsgTTL and AllowDirect.
//
// Start reading at [Bucket.Update], then at [Unknown]; for leases at [Take].
//
// # Reading
//
// [Bucket.Get] and everything that decides reads from the leader. What has
// Stale in its name, and [Bucket.Recent], is answered by any replica, which may
// be some milliseconds behind, also behind the caller's own writes: it is for
// lists and pages.
//
// # Writing
//
// Every write is conditional: it names the revision that it replaces. A write
// that fails with [Unknown] has to be settled by its caller: read, recognise
// the own write by a token in the value, decide. Reading "not there" proves
// nothing, since a write may land after its time-out; a second conditional
// write on the revision that was read settles it, because only one of the two
// can succeed. [Bucket.Edit] does so for documents, [Lease] for leases.
package kv
