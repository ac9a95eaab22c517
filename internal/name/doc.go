// Package name says which names Millrace accepts and how it makes its own.
//
// Namespaces, queues, classes, nodes, schedules, triggers and local IDs are each
// one token of a NATS subject, so the ID of a job, its key and every subject that
// ends in it can be read in one way only:
//
//	order.fulfil        a kind: tokens joined by dots
//	order               its queue: what stands before the first dot
//	order.4711          the ID of a job: queue, one dot, local ID
//	order.ship=1700-12  an ID that the engine made: the local part contains "="
//
// Everything from outside is checked here, at the edge, and refused in one line
// that repeats what was given, says what is wrong and what to do. Strings that
// come from data go through [Token] instead, which makes a token of any string.
//
// Start reading at [Check], then at [Token].
package name
