// Package millrace is the root of an event-driven job engine that
// needs nothing but NATS. It has no code of its own; its tests hold the rules
// that the rest of the tree keeps.
//
// To use Millrace, start reading at package
// [github.com/millrace/millrace/engine]; package
// [github.com/millrace/millrace/embedded] brings the server along. To understand
// it, read ARCHITECTURE.md and then package
// [github.com/millrace/millrace/engine/machine], where the life of a job is one
// table. To change it, read CONTRIBUTING.md.
package millrace
