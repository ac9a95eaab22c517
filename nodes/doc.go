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
// A key that is there proves little: a server that was killed may bring back one
// that had expired, and never end it again. One that nobody renews for two
// leases is void: the owner removes it if nobody answers, and whoever wants the
// ID takes it over. [kv.Vigil] says why that is safe.
//
// A key that is missing proves nothing: it may be that NATS was away, or that a
// node is registering again. So whoever finds a job running elsewhere asks the
// node, and if nobody answers, reads the verdict. Only the owner writes it, and
// only when nobody answers there either. It is the number up to which
// incarnations are dead, so it never meets a registration that comes later. A
// frozen process that wakes up may still answer yes: whoever asked believes it,
// and the record of the job decides.
//
// # What is stored
//
//	beat.<node>   the lease, with the incarnation
//	info.<node>   the description, written by whoever holds the beat, after
//	              taking it and before anything is claimed under it: so every
//	              incarnation that ever ran a job is smaller than the revision
//	              of its info, and the owner finds those it never saw alive
//	dead.<node>   the verdict; it only grows
package nodes
