// Package explain says why a job is where it is: what runs it, or what it waits
// for. It computes that when it is asked, from the record of the job and from
// what can be seen of those who could do something for it; it writes nothing.
//
//	Explainer  finds and asks what a job depends on        explain.go, look.go
//	Reason     the first thing that keeps a job there      reason.go, waiting.go,
//	                                                      pinned.go, family.go, turn.go
//
// Start reading at [Explainer.Why], then at the method reason of view.
package explain

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Reason is why a job is where it is, as [Explainer.Why] sees it. Its JSON is
// stable, the wording of the text aside.
type Reason struct {
	ID    string     `json:"id"`
	Kind  string     `json:"kind"`
	Queue string     `json:"queue"`
	State string     `json:"state"`
	Code  string     `json:"code"`   // one of the codes below
	Text  string     `json:"reason"` // one sentence, for people
	Node  *string    `json:"node"`   // that runs the job, or should
	Due   *time.Time `json:"due_at"` // of a job that is scheduled or retrying
}

// The codes of a [Reason].
const (
	Ended    = "ended"     // nothing will happen any more
	Removing = "removing"  // it has ended, and its record is about to go
	Running  = "running"   // its node runs it
	Ending   = "ending"    // its attempt was told to end and has not yet
	Offline  = "offline"   // the node that ran it is gone
	Delay    = "delay"     // it was submitted for later
	Retry    = "retry"     // it failed, and is tried again later
	Snooze   = "snooze"    // its handler asked to be tried later
	Paused   = "paused"    // somebody paused its queue
	Limit    = "limit"     // as many jobs of its queue run as may at once
	NoKind   = "no_kind"   // the workers of its queue have no handler for it
	NoWorker = "no_worker" // no worker takes from its queue
	Draining = "draining"  // those who could take it are draining
	NoOwner  = "no_owner"  // it needs the owner, and there is none
	Owner    = "owner"     // it needs the owner, which will see to it
	Busy     = "busy"      // no worker of its queue has a free slot
	Node     = "node"      // it is for a node that is not there
	Place    = "place"     // it is for a node that has some labels, and there is none
	Parts    = "parts"     // it waits for its parts, or shards
	Turn     = "turn"      // as many jobs of its schedule go on as may at once
	Soon     = "soon"      // it is about to be taken
	NotKnown = "not_known" // its state is one of a later version
)

const (
	tries    = 3               // how often Why looks, if the job moves meanwhile
	patience = 2 * time.Second // for how long Waits wants to know why
	moment   = time.Second     // for which a pending job needs no reason
)

// Options configures an [Explainer]: what it looks at. All fields are needed.
type Options struct {
	Namespace streams.Namespace
	Store     *store.Store
	Work      *streams.Work
	Clock     *streams.Clock
	// Queue returns the definition of a queue from the leader; only the name of
	// one that has none.
	Queue func(ctx context.Context, queue string) (spec.Queue, error)
	// Turns returns what a schedule knows of its jobs that take turns. It returns
	// [store.ErrNotFound] if it is not there.
	Turns func(ctx context.Context, schedule string) (Turns, error)
	// Declines returns why the schedule of a job does not let it begin, or nil.
	Declines func(ctx context.Context, j machine.Job) (*machine.Declined, error)
	// Lease is the lease of nodes in this namespace.
	Lease time.Duration
}

// Explainer says why jobs are where they are. It is safe for concurrent use and
// holds no resources of its own.
type Explainer struct {
	pub  *publish.Publisher
	opts Options
}

// New returns an explainer of the jobs of a namespace.
func New(pub *publish.Publisher, opts Options) *Explainer { return &Explainer{pub, opts} }

// Why says why a job is where it is: what runs it, or what it waits for. It
// writes nothing and costs a few requests. It returns [store.ErrNotFound] for a job
// that is not there.
func (e *Explainer) Why(ctx context.Context, id string) (Reason, error) {
	for try := 1; ; try++ {
		entry, err := e.opts.Store.Get(ctx, id)
		if err != nil {
			return Reason{}, fmt.Errorf("explain: look at job: %w", err)
		}
		v, err := e.look(ctx, entry)
		if err != nil {
			return Reason{}, fmt.Errorf("explain: look at job: %w", err)
		}
		reason := v.reason()
		if try == tries || !v.ready() && reason.Code != Offline {
			return reason, nil
		}
		// What was seen after the record means something else if the job has moved.
		now, err := e.opts.Store.Get(ctx, id)
		if err == nil && now.Revision == entry.Revision {
			return reason, nil
		}
	}
}

// Waits returns what a job waits for, if it has been pending for more than a
// moment, or waits for its parts or its turn, and nothing otherwise. It takes no longer than two
// seconds.
func (e *Explainer) Waits(ctx context.Context, entry store.Entry) (string, error) {
	j := entry.Value
	recently := e.opts.Clock.Now().Sub(pendingSince(j)) < moment
	if j.State != machine.Waiting && j.Wait != machine.WaitTurn && (j.State != machine.Pending || recently) {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	why, err := e.Why(ctx, entry.Key)
	if err != nil || why.State != string(j.State) {
		return "", err // or it does not wait any more
	}
	return why.Text, nil
}

// pendingSince returns since when a job that is ready has been that, at most.
func pendingSince(j machine.Job) time.Time {
	since := j.Created
	if j.Due.After(since) {
		since = j.Due
	}
	if n := len(j.Attempts); n > 0 && j.Attempts[n-1].Ended.After(since) {
		since = j.Attempts[n-1].Ended
	}
	return since
}
