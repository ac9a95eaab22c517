// Package reconcile finds jobs that lost what drives them.
//
// A job goes on because something else is there: an item in the work stream, a
// timer, a node that runs it. Whoever stores the record sees to that, and may die
// before; and streams, timers and consumers may be deleted by hand. The owner runs
// a [Reconciler], which demands:
//
//	pending               an item                         or offers it again
//	scheduled, retrying   its timer, or an item when due  or sets it again
//	running               a node that runs it             or makes it pending, or ends it
//	running with cancel                                   tells its node again
//	for one node          that node                       or rules on it
//	waiting                                               tells the keeper (package broadcast)
//	waiting for a turn                                    tells the scheduler (package timers/scheduler)
//	child, not ended      a parent that waits for it      or cancels it
//	with a time limit     its timer                       or sets it again
//	removing                                              removes it
//	ended, never expires  its expiry timer                or sets it; a child goes with its parent
//
// Once an hour it has the objects swept that no record names.
//
// It works in rounds (round.go). A round reads the headers of all records, from
// the first one on, and stays 10 s behind the head (read.go). So whatever it reads
// has not moved for 10 s, and of a job that took less it sees the end alone. What
// it reads it checks in batches (look.go), and remembers in a compact index how
// many items and timers there have to be (index.go). Every few seconds it compares
// that with what there is and checks a random sample (patrol.go), and looks after
// the consumers of the queues (consumer.go) and after the jobs of nodes that are
// gone (orphan.go): workers take those over, too, if there are any. The next round begins after ten
// minutes, when the patrol found something, or when somebody asks (ask.go).
//
//	records ──▶ read ──▶ look ──▶ Heal
//	              │        ▲
//	              └▶ index ┴ patrol
//
// Start reading at [Reconciler.Run].
//
// # What is promised
//
// Whether a job lacks something is decided twice. What look finds is a suspicion:
// what the job needs was not there, and its record did not move meanwhile. Then
// [store.Store.Heal] reads everything from the leader, and acts. What it makes too
// much does no harm, since the record decides what an item or a timer means. So
// two reconcilers at once are as good as one.
//
// A healthy system heals nothing, however busy it is. What heals a job is counted
// and logged.
package reconcile
