// Package spec reads definitions: the documents that people write in YAML or
// JSON and apply, and the same values made in Go.
//
//	kind: Trigger
//	name: new-orders
//	subject: orders.created
//	when: event.data.total > 0
//	job: order.fulfil
//	id: event.data.id
//
// A [Queue] says how the jobs of a queue are run and kept:
//
//	kind: Queue
//	name: email
//	concurrency: 3
//	retention:
//	  failed: 30d
//
// [Parse] turns a file into values of [Document] and reports everything that is
// wrong with it at once, each problem with its line and column. A [Trigger]
// compiles to a [Mapping], which says what job an event starts; [Cover] says
// which subjects have to be captured for many of them.
//
// The package is pure: no file, no clock, no network. It refuses what could
// never work; whether a stream exists or a subject is free it cannot know.
//
// # Expressions
//
// The fields when, id and input are expressions in CEL over
//
//	event.subject    string
//	event.data       what the event carries: JSON, otherwise a string; null if it is empty
//	event.headers    a map of strings; of several values of one header, the first
//	event.time       timestamp
//	event.sequence   int, the place in the stream
//
// Integers compare with fractions and stay integers up to 64 bits; what is larger
// becomes a double. Data that is neither JSON nor UTF-8 is a base64 string.
// Evaluation has a limit of steps and of memory and cannot hang.
//
// Start reading at [Parse], then at [Mapping.Map].
package spec
