// Package nodes knows which processes are there, and which are gone.
//
// A process that runs workers is a node: it has a stable ID and holds the lease
// beat.<node> for as long as it lives. One life of that registration is an
// incarnation, a number that grows: the revision of the write that took the key.
//
//	Join, Node      register, beat, register again, leave       node.go, register.go
//	Asker           "do you run job X, token T?"                ask.go
//	Judge           the owner's verdict: dead.<node>            judge.go, suspects.go, known.go
//	List            everybody, for people                       list.go
//	Asker.Drain     "take nothing new"                          drain.go
//	Serves          whether somebody serves                     serves.go
//
// Start reading at [Join], then at [Asker.Ask] and [Judge.Run].
//
// # Who is dead
//
// A node renews its key every third of the lease, and at once after a reconnect. It
// judges itself by its monotonic clock: when no renewal was acknowledged in time, its
// handlers' contexts end and it registers again, under a larger incarnation. What the
// earlier one claimed is then unprotected, not void: until somebody takes it over, its
// outcome counts.
//
// A key that is there proves little: a server that was killed may bring back one
// that had expired, and never end it again. One that nobody renews for two
// leases is void: the owner removes it if nobody answers, and whoever wants the
// ID takes it over. [kv.Vigil] says why that is safe.
//
// A key that is missing proves nothing: it may be that NATS was away, or that a
// node is registering again. So whoever finds a job running elsewhere asks the
// node, and if nobody answers, reads the verdict. Only the owner writes it, and
// only when nobody answers there either, and its own lease has been renewed without
// a break for one lease. It is the number up to which incarnations are dead: the last
// sequence of the nodes' stream, read before the read that finds the key gone. So it
// never meets a registration that comes later. A description is written after the
// key, so that a verdict never falls between the two.
//
// Only a registered process of at least the claiming incarnation can deny a claim; any
// process of that ID can confirm one. Who asks and hears nothing, and finds no verdict,
// tells the owner, on mr.<ns>.ctl.owner.suspect. A frozen process that wakes up may
// still answer yes: whoever asked believes it, and the record of the job decides.
//
// # What is stored
//
//	beat.<node>   the lease, with the incarnation
//	info.<node>   the description, written by whoever holds the beat, after
//	              taking it and before anything is claimed under it: so every
//	              incarnation that ever ran a job is smaller than the revision
//	              of its info, and the owner finds those it never saw alive
//	dead.<node>   the verdict; it only grows
//
// # Drain
//
// A node that is asked to drain closes its gates, stores that in its description,
// waits until nothing is being taken and nothing lies between a delivery and the
// start of its handler, and answers only then. To start is to call the handler: what
// was called just before may run its first instruction just after. Who hears nothing
// asks again. The wish is adopted by the next process under the same ID, before
// anything is claimed under it (drain.go).
package nodes
