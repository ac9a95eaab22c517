package explain

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// view is what can be seen of a job and of those who could do something for it.
type view struct {
	id    string
	queue string
	job   machine.Job
	now   time.Time // by the server's clock
	lease time.Duration

	nodes   []nodes.Member // nil if the job has ended
	offered bool           // there is an item; known for ready jobs only
	load    streams.Load   // of the queue; known for ready jobs only
	defined spec.Queue     // what people say about the queue; known for ready and waiting jobs only
	family  *family        // the parts of a job that waits for them
	turns   *turns         // what the schedule knows for whose turn the job waits

	declined *machine.Declined // why its schedule does not let it begin; known for ready jobs only
}

// look looks at what a job depends on, as far as its state asks for that.
func (e *Explainer) look(ctx context.Context, entry store.Entry) (view, error) {
	queue, local, _ := name.SplitJobID(entry.Key) // a key that is no ID has no queue
	v := view{id: entry.Key, queue: queue, job: entry.Value, lease: e.opts.Lease}
	if v.job.State.Final() {
		return v, nil
	}
	if err := e.opts.Clock.Fresh(ctx); err != nil {
		return v, err
	}
	v.now = e.opts.Clock.Now()
	var err error
	waits := v.job.State == machine.Waiting
	if v.nodes, err = nodes.List(ctx, e.pub, e.opts.Namespace); err != nil || !v.ready() && !waits && v.job.Wait != machine.WaitTurn {
		return v, err
	}
	if v.job.Wait == machine.WaitTurn {
		v.turns, err = e.lookAtTurns(ctx, v.job)
		return v, err
	}
	if v.defined, err = e.opts.Queue(ctx, queue); err != nil {
		return v, err
	}
	if waits {
		v.family, err = e.lookAtFamily(ctx, entry)
		return v, err
	}
	if v.job.Unchecked() {
		if v.declined, err = e.opts.Declines(ctx, v.job); err != nil {
			return v, err
		}
	}
	node := ""
	if v.job.Pin != nil {
		node = v.job.Pin.Node
	}
	if v.offered, err = e.opts.Work.Offered(ctx, node, queue, local); err != nil {
		return v, err
	}
	v.load, err = e.opts.Work.Load(ctx, queue)
	if errors.Is(err, streams.ErrNoConsumer) {
		err = nil // no worker has ever been there, or the next pull makes one
	}
	return v, err
}

// ready reports whether the job waits for a worker, or for the owner to offer it
// to one.
func (v view) ready() bool {
	return v.job.State == machine.Pending || v.job.State.Delayed() && v.job.Wait != machine.WaitTurn && !v.now.Before(v.job.Due)
}
