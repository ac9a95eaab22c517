// Package natstest gives tests a real NATS server with JetStream: in the test's
// own process, on a virtual clock, behind a connection that fails on demand.
// Only tests import it.
//
// Start reading at [Start] and [Connect]; almost every test needs nothing else.
// [Bubble] puts a server into a synctest bubble, where hours of ack waits,
// time-outs and expiries pass in milliseconds. [StartListening] is for clients in
// other processes and for servers that stop and come back, [StartTree] for clients
// of leaf nodes, and [StartCluster] for three servers. [Link]
// sits between a client and a server and decides the fate of every single write.
package natstest
