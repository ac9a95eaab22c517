package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

const (
	// late is how long a job may lack an item, or a timer be due, before that is
	// wrong: the owner takes half a minute to heal what was destroyed.
	late = 30 * time.Second
	// near is how soon a delayed job must be due to count as waiting: one that
	// found no handler is offered again within it.
	near = time.Minute
	// mostSure is of how many jobs the leader is asked whether they lack an item.
	mostSure = 32
)

// place is where jobs wait.
type place struct{ queue, kind string }

// jobs is what a scan of all records saw.
type jobs struct {
	seen     uint64 // records
	all      uint64 // that there were
	unknown  int    // records that this build cannot read
	waiting  map[place]int
	running  map[string]int // by queue
	orphans  []orphan       // running jobs whose node is not there
	suspects []suspect      // that may lack an item
	pinned   map[string]pinned
	families map[string]*family // by the job that waits for its parts
}

// orphan is a job that runs on a node that is not there, or that has started anew.
type orphan struct {
	id   string
	node string
	anew time.Time // when the node has started anew
}

// suspect is a job that may lack an item, as it was stored.
type suspect struct {
	id       string
	node     string // in whose mailbox its item should lie, or ""
	sequence uint64
}

// errEnough ends a scan.
var errEnough = errors.New("read enough")

// scan visits the headers of a stream as it is now.
func (c *chart) scan(ctx context.Context, stream string, visit func(follow.Message) error) error {
	info := c.stream(stream)
	if info == nil || info.State.Msgs == 0 {
		return nil
	}
	opts := follow.Options{
		Stream: stream, Until: math.MaxUint64, // its end, by now: a record that has changed since info is behind that one
		Headers: true, Batch: 5000, Logger: slog.New(slog.DiscardHandler),
	}
	err := follow.Run(ctx, c.pub, opts, visit)
	if errors.Is(err, errEnough) {
		return nil
	}
	return errors.Join(err, context.Cause(ctx))
}

// stream returns what is known of a stream, or nil if it is not there.
func (c *chart) stream(name string) *jetstream.StreamInfo {
	for _, a := range c.assets {
		if a.Name == name {
			return a.Info
		}
	}
	return nil
}

// seeJobs reads the headers of all records, as many as it may.
func (c *chart) seeJobs(ctx context.Context) error {
	bucket := c.opts.Namespace.Bucket(streams.Jobs)
	c.jobs = jobs{waiting: map[place]int{}, running: map[string]int{}, pinned: map[string]pinned{}, families: map[string]*family{}}
	if info := c.stream("KV_" + bucket); info != nil {
		c.jobs.all = info.State.Msgs
	}
	return c.scan(ctx, "KV_"+bucket, func(msg follow.Message) error {
		if c.jobs.seen == c.opts.MostScanned {
			return errEnough
		}
		c.jobs.seen++
		c.note(strings.TrimPrefix(msg.Subject, "$KV."+bucket+"."), msg)
		return nil
	})
}

// note takes in what the headers of a record say of its job.
func (c *chart) note(id string, msg follow.Message) {
	queue, _, err := name.SplitJobID(id)
	if err != nil || kv.IsMarker(msg.Header) {
		return // nothing of ours
	}
	g := store.LookAt(msg.Header)
	c.noteFamily(id, g, msg.Time)
	due := !g.State.Delayed() || time.UnixMilli(g.Due).Before(c.now.Add(near))
	switch {
	case !g.State.Known():
		c.jobs.unknown++
	case g.State == machine.Running:
		c.jobs.running[queue]++
		if o, gone := c.orphaned(id, g); gone && len(c.jobs.orphans) < direct.Max {
			c.jobs.orphans = append(c.jobs.orphans, o)
		}
	case g.State == machine.Waiting, g.Turn != "": // they need no worker yet
	case !g.State.Final() && due:
		c.noteReady(id, place{queue, g.Kind}, g)
		past := c.now.Add(-late)
		lasts := msg.Time.Before(past) && (!g.State.Delayed() || time.UnixMilli(g.Due).Before(past))
		if lasts && (!g.Pinned || g.Pin != "") && len(c.jobs.suspects) < direct.Max {
			c.jobs.suspects = append(c.jobs.suspects, suspect{id: id, node: g.Pin, sequence: msg.Sequence})
		}
	}
}

// orphaned reports whether the node of a running job is not there as the
// incarnation that claimed it.
func (c *chart) orphaned(id string, g store.Glance) (orphan, bool) {
	for _, m := range c.nodes {
		if m.ID == g.Node && m.State != nodes.Offline {
			return orphan{id, m.ID, m.Started}, m.Incarnation != g.Incarnation
		}
	}
	return orphan{id: id, node: g.Node}, true
}

// seeGone finds out since when nodes are offline that have running jobs: since
// their beat ended, or since the verdict on them. It is long ago if there is
// neither.
func (c *chart) seeGone(ctx context.Context) error {
	c.gone = map[string]time.Time{}
	if len(c.jobs.orphans) == 0 {
		return nil
	}
	js, err := c.pub.JetStream()
	if err != nil {
		return err
	}
	bucket := c.opts.Namespace.Bucket(streams.Nodes)
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return fmt.Errorf("open stream KV_%s: %w", bucket, err)
	}
	for _, o := range c.jobs.orphans {
		if _, known := c.gone[o.node]; known {
			continue
		}
		c.gone[o.node] = o.anew
		for _, key := range []string{"beat.", "dead."} {
			msg, err := stream.GetLastMsgForSubject(ctx, "$KV."+bucket+"."+key+o.node)
			switch {
			case errors.Is(err, jetstream.ErrMsgNotFound):
			case err != nil:
				return fmt.Errorf("read key %s%s: %w", key, o.node, err)
			case o.anew.IsZero() && c.gone[o.node].IsZero():
				c.gone[o.node] = msg.Time
			}
		}
	}
	return nil
}

// seeStuck finds the jobs without an item among those that should have one.
func (c *chart) seeStuck(ctx context.Context) error {
	work, err := streams.NewWork(c.opts.Namespace, c.pub)
	if err != nil {
		return err
	}
	refs := make([]streams.Ref, len(c.jobs.suspects))
	for i, s := range c.jobs.suspects {
		refs[i] = streams.Ref{ID: s.id, Node: s.node}
	}
	has, err := work.Has(ctx, refs)
	if err != nil {
		return err
	}
	c.stuck = nil
	var lacking []suspect
	for _, s := range c.jobs.suspects {
		if !has[s.id] {
			lacking = append(lacking, s)
		}
	}
	sure := min(len(lacking), mostSure)
	for _, s := range lacking[:sure] {
		if lacks, err := c.lacksItem(ctx, work, s); err != nil {
			return err
		} else if lacks {
			c.stuck = append(c.stuck, s.id)
		}
	}
	if len(c.stuck) == sure { // so what the replicas say of the others is believed
		for _, s := range lacking[sure:] {
			c.stuck = append(c.stuck, s.id)
		}
	}
	return nil
}

// lacksItem asks the leader whether a job has no item and is as it was.
func (c *chart) lacksItem(ctx context.Context, work *streams.Work, s suspect) (bool, error) {
	queue, local, err := name.SplitJobID(s.id)
	if err != nil {
		return false, err
	}
	if has, err := work.Offered(ctx, s.node, queue, local); err != nil || has {
		return false, err
	}
	entry, err := kv.Open(c.pub, c.opts.Namespace.Bucket(streams.Jobs), store.Codec()).Get(ctx, s.id)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return entry.Revision == s.sequence, err
}

// overdue is what a scan of the timers saw.
type overdue struct {
	timers int
	oldest time.Time // when it was due
}

// seeTimers looks for timers that should have been fired.
func (c *chart) seeTimers(ctx context.Context) error {
	c.overdue = overdue{}
	var seen uint64
	return c.scan(ctx, c.opts.Namespace.TimerStream(), func(msg follow.Message) error {
		if seen == c.opts.MostScanned {
			return errEnough
		}
		seen++
		at, ok := streams.TimerAt(msg.Header)
		if !ok || !at.Before(c.now.Add(-late)) {
			return nil
		}
		c.overdue.timers++
		if c.overdue.oldest.IsZero() || at.Before(c.overdue.oldest) {
			c.overdue.oldest = at
		}
		return nil
	})
}
