// Package triggers is about which events start which jobs.
//
// A trigger is a [Rule]: one that is stored, as [Triggers.Apply] leaves it, or
// one in Go, that a worker brings along. Its events come from a stream: one that
// is there, or the namespace's own, which captures subjects that no other stream
// has. The files, in the order of an event's way:
//
//	rule.go      what a trigger is: where its events come from, what they become
//	message.go   an event and its source, as users see them
//	stored.go    triggers that are stored; apply.go, delete.go, info.go
//	capture.go   which stream has the events of a source
//	cursor.go    where a trigger stands
//	place.go     the cursor and the consumer that it needs there
//	serve.go     who runs stored triggers
//	run.go       a runner reads events
//	event.go     an event becomes a job and is then acknowledged
//	dead.go      or it cannot, and is kept with the reason
//
// Start reading at [Triggers.Run].
//
// Events arrive at least once. One that arrives again starts nothing, since the
// ID of its job follows from it. An event is acknowledged last: after its job is
// stored and offered, or after it is on the list of the dead.
//
// Users meet all this in package engine, so that is what errors begin with.
package triggers

import (
	"encoding/json"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Options configures [Triggers].
type Options struct {
	Namespace streams.Namespace
	// Make returns the record of a new job, or says why there can be none. It
	// is required.
	Make func(Job) (machine.Job, error)
	// Holder names this process to others that wait for the bootstrap lease.
	// Default: the host's name and the process's number.
	Holder string
	// Logger is told what happened to events that is not an error of the
	// caller's. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Holder == "" {
		host, _ := os.Hostname() // is for people to read
		o.Holder = host + "#" + strconv.Itoa(os.Getpid())
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Job is a job that an event starts.
type Job struct {
	Kind  string
	Local string // ID
	Terms
	Input json.RawMessage
	Trace map[string]string // W3C trace context, by header name
}

// Terms is what a rule says about its jobs. The zero value of a field means its
// default.
type Terms struct {
	Queue        string        // default: the kind's
	Class        machine.Class // of priority; default: the normal one
	MaxAttempts  int
	QueueTimeout time.Duration // to start; default: none
	Deadline     time.Duration // to end; default: none
}

// Triggers are the triggers of a namespace as one process sees them. It is safe
// for concurrent use.
type Triggers struct {
	ns     streams.Namespace
	holder string
	log    *slog.Logger
	pub    *publish.Publisher
	store  *store.Store
	make   func(Job) (machine.Job, error)
	// standingIn has a token while somebody may run the stored triggers in
	// place of a node that serves.
	standingIn chan struct{}
}

// Open returns the triggers of a namespace whose assets are there.
func Open(pub *publish.Publisher, jobs *store.Store, opts Options) *Triggers {
	o := opts.withDefaults()
	return &Triggers{
		ns: o.Namespace, holder: o.Holder, log: o.Logger, pub: pub, store: jobs, make: o.Make,
		standingIn: make(chan struct{}, 1),
	}
}

// retryPause is the pause after something failed that may work soon.
const retryPause = 100 * time.Millisecond
