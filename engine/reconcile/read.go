package reconcile

import (
	"context"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

const (
	// lag is how far the reader stays behind the head of the jobs. Who stored a
	// record carries out at once what it owes, so what is still missing then is
	// lost, as a rule.
	lag = 10 * time.Second
	// readBatch is how many records are read at a time. It is no more, since what was
	// fetched too early cannot be replaced any more.
	readBatch = 5000
)

// record is a job as it was stored under a sequence: what its headers say.
type record struct {
	id       string
	sequence uint64
	at       time.Time // when it was stored
	store.Glance
	item bool // all that its job may lack is an item
}

// goes reports whether a job that is stored like that is to go on.
func (r *record) goes() bool { return r.State.Known() && !r.State.Final() }

// stays reports whether a job has ended and its record does not go by itself.
func (r *record) stays() bool { return r.State.Final() && r.State != machine.Removing && !r.Expires }

// read reads all records, and those that are written meanwhile, until ctx ends.
func (g *round) read(ctx context.Context) error {
	opts := follow.Options{
		Stream: g.stream(), Headers: true, Lag: lag, Now: g.opts.Clock.Now, Batch: readBatch, Beat: g.opts.Lease / 3, Logger: g.opts.Logger,
	}
	return follow.Run(ctx, g.pub, opts, func(msg follow.Message) error {
		g.visit(ctx, msg)
		return nil
	})
}

// visit remembers a record that was read, or what it means for those before, and
// lets it be checked if there may be something to do.
func (g *round) visit(ctx context.Context, msg follow.Message) {
	defer g.passed.Store(msg.Sequence)
	rec := record{id: g.id(msg.Subject), sequence: msg.Sequence, at: msg.Time, Glance: store.LookAt(msg.Header)}
	queue, local, err := name.SplitJobID(rec.id)
	switch {
	case err != nil:
		return // nothing of ours
	case kv.IsMarker(msg.Header):
		rec.Glance = store.Glance{}
	}
	if rec.goes() {
		g.index.put(queue, local, g.index.entryOf(rec), g.opts.Clock.Now())
	} else {
		g.index.drop(queue, local)
	}
	if rec.State == machine.Waiting {
		g.opts.Waiting(rec.id)
	}
	if rec.Turn != "" {
		g.opts.Turn(rec.Turn, rec.id)
	}
	if rec.goes() || rec.stays() || rec.State == machine.Removing {
		select {
		case <-ctx.Done():
		case g.seen <- rec:
		}
	}
}

// caughtUp reports whether the reader is done with all records that are old
// enough.
func (g *round) caughtUp(ctx context.Context) bool {
	next, err := g.get(ctx, publish.Query{Sequence: g.passed.Load() + 1, Next: ">"})
	if err != nil {
		return publish.Gone(err)
	}
	return next.at.Add(lag).After(g.opts.Clock.Now())
}

// bucket is the name of the jobs bucket, and stream that of its stream.
func (r *Reconciler) bucket() string { return r.opts.Namespace.Bucket(streams.Jobs) }
func (r *Reconciler) stream() string { return "KV_" + r.bucket() }

// id returns the job whose record lies on a subject.
func (r *Reconciler) id(subject string) string {
	return strings.TrimPrefix(subject, "$KV."+r.bucket()+".")
}

// get reads a message of the jobs bucket from the leader. See [publish.Gone] for one
// that is not there.
func (r *Reconciler) get(ctx context.Context, q publish.Query) (record, error) {
	m, err := r.pub.Message(ctx, r.stream(), q)
	if err != nil {
		return record{}, err
	}
	return record{id: r.id(m.Subject), sequence: m.Sequence, at: m.Time, Glance: store.LookAt(m.Header)}, nil
}
