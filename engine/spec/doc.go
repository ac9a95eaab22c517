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
// A [Schedule] says when jobs are made without anybody asking for them:
//
//	kind: Schedule
//	name: nightly-report
//	cron: "0 3 * * *"
//	zone: Europe/Berlin
//	job: report.build
//	input: {day: "${tick.date}"}
//
// [Parse] turns a file into values of [Document] and reports everything that is
// wrong with it at once, each problem with its line and column. A [Trigger]
// compiles to a [Mapping], which says what job an event starts; [Cover] says
// which subjects have to be captured for many of them. A schedule has a calendar,
// by [Schedule.Rule], and the input of its jobs, by [Schedule.Template].
//
// The package is pure: no file, no clock, no network. It refuses what could
// never work; whether a stream exists or a subject is free it cannot know.
//
// # Expressions
//
// The fields when, id and input of a trigger are expressions in CEL over
//
//	event.subject    string
//	event.data       what the event carries: JSON, otherwise a string; null if it is empty
//	event.headers    a map of strings; of several values of one header, the first
//	event.time       timestamp
//	event.sequence   int, the place in the stream
//
// Integers compare with fractions and stay integers up to 64 bits; what is larger
// becomes a double. Data that is neither JSON nor UTF-8 is a base64 string.
// Evaluation has a limit of steps and of memory and cannot hang. In the input of a
// schedule expressions are parts of strings, over other variables: see [Template].
//
// Start reading at [Parse], then at [Mapping.Map].
package spec
