// Package bug is faults of the engine itself, made on purpose: those of a design
// that is simpler than ours. With them it is shown that the tests of faults would
// notice. They are there in programs that are built with the tag bugs, and happen
// in a process whose MILLRACE_BUG names one. In any other build they are the
// constant false, and the compiler leaves out what depends on them.
//
// Start reading at the places in the engine that ask for one; each has one more in
// what would heal it, since an engine with such a bug would not know what to look
// for.
//
//	ack-first   a worker acknowledges an item before it writes the claim
//	take-over   who gets the item of a running job takes the job over, and asks nobody
//	forget      who stores an outcome does not carry out what the job owes then
//	save-first  the owner stores that a tick is over before it makes its job
package bug
