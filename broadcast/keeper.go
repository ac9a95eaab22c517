// Package broadcast keeps the jobs that wait for their children: broadcasts and
// sharded jobs. The owner runs a [Keeper], which counts how the children end, makes
// further ones where only some may be open at a time, and ends the parent.
//
//	child ends ──Ending──▶ hear ──▶ tally ──▶ make the next ones, or conclude
//	                        ▲
//	            poll ───────┘ in case nobody heard: with back-off
//
//	keeper.go    what is heard, and whom there is time for
//	family.go    one waiting job: its shares, and how its children are
//	poll.go      what was not heard of, and nodes that do not come for their parts, or died
//	conclude.go  the end of the waiting job
//
// Who gets what is planned in the package plan; children and parents are stored by
// engine/store.
//
// Start reading at [Keeper.Run], then at the method step.
//
// # What is promised
//
// An Ending is a hint: constant work, and never more than that. It may be lost, come
// twice, or be of a life before. So before a parent is concluded, its record is read
// from the leader, and the children are read; and where only some children may be
// open at a time, each end is read from the leader before the next child is made.
//
// Nothing is stored here but by the compare-and-swap that ends the parent and by the
// idempotent creation of children. A keeper that dies leaves nothing behind: the
// next owner meets the waiting record, reads the children, and goes on. Two keepers
// at once make the same children, and one of them ends the parent.
//
// # Parents and children
//
// A broadcast and a sharded job have no handler and no item. They are waiting, and
// what they owe is a child for each share of a list that was settled at the dispatch:
// the nodes that matched, or the shards. A child is a job under an ID that follows
// from its parent's, with a pin. So the children can be made by anybody, any number of
// times: the submitter does, and the owner completes it.
//
// A pin says which node may claim the job, and Apply of package machine refuses every
// other. Without a rule it never changes: that is a part. With one the owner places
// the job anew when the node is gone or drains: that is a shard. A node is gone when
// the verdict covers the incarnation that the pin means: then the job is lost, waits
// for the node, or is for any worker, as the pin says. A child reads its parent before
// it is claimed: gone, ended, or another life of its ID, and it is cancelled instead.
package broadcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/feed"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Options configures a [Keeper]. The zero value of a field means its default.
type Options struct {
	// Namespace is whose jobs are kept. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// Owner is the lease under which the keeper works, as timers.Stand gives it.
	// It is required.
	Owner *kv.Lease

	// Store makes children, reads them, and ends those who wait for them. It is
	// required.
	Store *store.Store

	// Asker asks nodes to look into their mailboxes. It is required.
	Asker *nodes.Asker

	// Stranded is told of children whose nodes were not there after a verdict, and
	// that the reconciler may not have read yet. It must not block. Default: nobody
	// is told.
	Stranded func(ids []string)

	// Logger hears of what failed. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Stranded == nil {
		o.Stranded = func([]string) {}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Owner == nil {
		errs = append(errs, errors.New("owner is required"))
	}
	if o.Store == nil {
		errs = append(errs, errors.New("store is required"))
	}
	if o.Asker == nil {
		errs = append(errs, errors.New("asker is required"))
	}
	return errors.Join(errs...)
}

const (
	// tick is how often the keeper looks at the clock.
	tick = time.Second
	// atOnce bounds how many families are tended at the same time.
	atOnce = 32
	// pollsPerTick bounds for how many families it is time at once: who has
	// hundreds of thousands polls each more rarely.
	pollsPerTick = 500
	// strange is how long a job is left alone of which nothing is known but that
	// children of it have ended: as a rule its submitter is about to make the
	// others, or it has just been concluded.
	strange = time.Second
	// young is for how long a child may be unknown to the reconciler after it was
	// made: that reads ten seconds behind.
	young = 12 * time.Second
	// shortest and longest are how long after an error a family is read again.
	shortest, longest = time.Second, 10 * time.Second
	// warnEvery bounds how often the log says that something failed.
	warnEvery = time.Minute
)

// Keeper counts how the children of waiting jobs end, and ends those jobs. Make
// one with [New].
type Keeper struct {
	opts Options
	pub  *publish.Publisher
	wake chan struct{} // has one element if there is somebody to be tended
	bell bell

	mu struct {
		sync.Mutex
		families map[string]*family // by the parent's ID
		ready    []*family          // those that are to be tended now
		warned   time.Time
	}
}

// New returns a keeper that does nothing before [Keeper.Run].
func New(pub *publish.Publisher, o Options) *Keeper {
	k := &Keeper{opts: o.withDefaults(), pub: pub, wake: make(chan struct{}, 1)}
	k.mu.families = make(map[string]*family)
	k.bell.keeper, k.bell.asked, k.bell.reading = k, make(map[string]*ringing), make(chan struct{}, 1)
	k.bell.asking.SetLimit(ringsAtOnce)
	return k
}

// Run keeps waiting jobs until ctx or the owner's lease ends, waits for what it has
// begun, and returns nil. Errors of NATS do not end it.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.opts.validate(); err != nil {
		return fmt.Errorf("broadcast: keep waiting jobs: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.opts.Owner.Context(), cancel)()
	stop, err := k.listen()
	if err != nil {
		return fmt.Errorf("broadcast: listen to the ends of children: %w", err)
	}
	defer stop()
	connected := k.pub.Conn().StatusChanged(nats.CONNECTED)
	defer k.pub.Conn().RemoveStatusListener(connected)
	every := time.NewTicker(tick)
	defer every.Stop()
	var tending errgroup.Group
	tending.SetLimit(atOnce)
	defer func() { cancel(); _ = tending.Wait(); k.bell.wait() }() // they return no errors
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-connected:
			k.doubt()
		case <-every.C:
			k.remind(time.Now())
		case <-k.wake:
		}
		for _, f := range k.takeReady() {
			tending.Go(func() error { k.tend(ctx, f); return nil })
		}
	}
}

// listen hears of children that have ended until stop is called, which waits for the
// last that was heard.
func (k *Keeper) listen() (stop func(), err error) {
	return feed.Hear(k.pub.Conn(), store.EndingSubject(k.opts.Namespace), func(msg *nats.Msg) {
		e, err := store.ReadEnding(msg)
		if err != nil {
			k.opts.Logger.Debug("end of a child passed over", "err", err)
			return
		}
		k.hear(e)
	})
}

// hear notes that a child has ended, or that the children of a job were made.
func (k *Keeper) hear(e store.Ending) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.family(e.Parent)
	if e.Part == "" {
		f.forked = true
	} else {
		f.heard = append(f.heard, e)
	}
	if f.known || f.forked || f.busy { // while it is read for the first time, to be tended again
		k.rouse(f)
	}
}

// Seen says that a waiting job was met, at least some seconds after it was stored.
// It does not block.
func (k *Keeper) Seen(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.families[id] == nil {
		f := k.family(id)
		f.forked = true // or whoever was about to has died
		k.rouse(f)
	}
}

// family returns that of a parent, which may be new. The caller holds the lock.
func (k *Keeper) family(id string) *family {
	f := k.mu.families[id]
	if f == nil {
		f = &family{id: id, due: time.Now().Add(strange)}
		k.mu.families[id] = f
	}
	return f
}

// rouse has a family tended now, or once more if it is just now. The caller holds
// the lock.
func (k *Keeper) rouse(f *family) {
	if f.busy {
		f.again = true
		return
	}
	f.busy = true
	k.mu.ready = append(k.mu.ready, f)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// remind has those families tended that it is time for.
func (k *Keeper) remind(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, f := range k.mu.families { // a map begins anywhere, so each has its turn
		if !f.busy && !now.Before(f.due) {
			k.rouse(f)
			if n++; n == pollsPerTick {
				return
			}
		}
	}
}

// doubt has all families polled: while the connection was away something may have
// ended that was not heard of.
func (k *Keeper) doubt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.mu.families {
		f.missed = true
		if f.known {
			k.rouse(f)
		}
	}
}

// Verdict says that a node was found dead. The reconciler rules on its jobs, but for
// those that it has not read yet: children that were made a moment ago are read here,
// and it is told of those whose node is gone. Verdict does not block.
func (k *Keeper) Verdict() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, f := range k.mu.families {
		if f.known && now.Before(f.grown) || f.busy {
			f.verdict = now
			k.rouse(f)
		}
	}
}

// takeReady returns the families that are to be tended now.
func (k *Keeper) takeReady() []*family {
	k.mu.Lock()
	defer k.mu.Unlock()
	ready := k.mu.ready
	k.mu.ready = nil
	return ready
}

// tend does what there is to do for a family. Nobody else does meanwhile.
func (k *Keeper) tend(ctx context.Context, f *family) {
	k.mu.Lock()
	n := news{heard: f.heard, forked: f.forked, missed: f.missed, verdict: f.verdict}
	f.heard, f.forked, f.missed, f.again, f.verdict = nil, false, false, false, time.Time{}
	k.mu.Unlock()
	over, err := k.step(ctx, f, n)
	if err != nil {
		k.warn(ctx, f.id, err)
		f.fail()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f.busy, f.known, f.due, f.grown = false, !over && f.tally != nil, f.pollAt, f.born.Add(young)
	f.missed = f.missed || n.missed && err != nil
	f.forked = f.forked || n.forked && err != nil
	if f.verdict.IsZero() && err != nil {
		f.verdict = n.verdict
	}
	switch {
	case err != nil:
	case over && !f.forked && len(f.heard) == 0:
		delete(k.mu.families, f.id)
	case over: // what was heard since may be of the next life under this ID
		f.fail()
		f.due = time.Now().Add(strange)
		if f.forked {
			k.rouse(f)
		}
	case f.again:
		k.rouse(f)
	}
}

// warn logs that a family could not be tended.
func (k *Keeper) warn(ctx context.Context, id string, err error) {
	k.mu.Lock()
	now := time.Now()
	often := now.Sub(k.mu.warned) < warnEvery
	if !often {
		k.mu.warned = now
	}
	k.mu.Unlock()
	level := slog.LevelWarn
	if often || ctx.Err() != nil || errors.Is(err, errMoved) || errors.Is(err, kv.ErrLeaseLost) {
		level = slog.LevelDebug
	}
	k.opts.Logger.Log(ctx, level, "a job that waits for its children is looked at again soon", "job", id, "err", err)
}
