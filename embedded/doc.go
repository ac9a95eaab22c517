// Package embedded runs a NATS server with JetStream in this process: for
// laptops, for examples, and for products that bring everything with them. It is
// an ordinary server; whatever is written for a NATS network runs on it unchanged.
//
// Start reading at [Start], then at [Options].
//
// One process at a time owns a data folder. The operating system keeps the lock
// and frees it when the process ends, however it ends, so nothing has to be
// cleaned up after a crash. There is no cluster here: a node that must survive
// the loss of its machine needs a NATS cluster of its own.
package embedded
