package broadcast

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/nodes"
)

const (
	// firstPoll and rarestPoll are how long after the last one the open children
	// are read: after something has happened, and after nothing has for long.
	firstPoll, rarestPoll = 2 * time.Second, 10 * time.Second
	// pollEach is how much longer that is for each of them, so that reading many
	// does not become more work than they are.
	pollEach = 2 * time.Millisecond
	// overslept is for how long a live node may leave a child before it is asked
	// to look into its mailbox.
	overslept = 2 * time.Second
)

// soon has a family polled soon, now that something has happened: at the first time
// in any case, and not later than it would have been.
func (f *family) soon(now time.Time) {
	switch at := now.Add(f.interval(firstPoll)); {
	case f.wait == 0:
		f.pollAt = now.Add(firstPoll)
	case at.Before(f.pollAt):
		f.pollAt = at
	}
	f.wait = firstPoll
}

// interval returns when to poll, if that is after wait for a few children.
func (f *family) interval(wait time.Duration) time.Duration {
	return max(wait, time.Duration(len(f.shares))*pollEach)
}

// poll reads the children that have not ended, as far as is known, and asks nodes
// that do not come for theirs. If there was a verdict it tells of those whose nodes are
// gone. It reports whether the parent does not wait any more.
func (k *Keeper) poll(ctx context.Context, f *family, verdict time.Time) (gone bool, err error) {
	if gone, err := k.load(ctx, f); gone || err != nil {
		return gone, err
	}
	var living map[string]uint64
	if !verdict.IsZero() {
		if living, err = k.bell.there(ctx, verdict); err != nil {
			return false, err
		}
	}
	idle, stranded := map[string]struct{}{}, map[string]struct{}{}
	err = k.read(ctx, f, f.tally.Open(), func(_ int, child store.Entry) {
		switch {
		case living != nil && strandedOf(child.Value, living):
			stranded[child.Key] = struct{}{}
		case k.overslept(child):
			idle[child.Value.Pin.Node] = struct{}{}
		}
	})
	if err != nil {
		return false, err
	}
	if len(stranded) > 0 {
		k.opts.Stranded(slices.Collect(maps.Keys(stranded)))
	}
	if len(idle) > 0 {
		k.bell.ring(ctx, idle)
	}
	f.wait = min(2*f.wait, rarestPoll)
	f.pollAt = time.Now().Add(f.interval(f.wait))
	return false, nil
}

// strandedOf reports whether a child that has not ended is for a life of a node that is
// not among the living, or runs in one.
func strandedOf(j machine.Job, living map[string]uint64) bool {
	switch {
	case j.Lease != nil && j.State == machine.Running:
		return living[j.Lease.Node] != j.Lease.Incarnation
	case j.Pin == nil || j.Pin.Node == "":
		return false
	}
	now := living[j.Pin.Node]
	return now == 0 || j.Pin.Incarnation != 0 && j.Pin.Incarnation != now
}

// overslept reports whether the node of a child could have claimed it long ago.
func (k *Keeper) overslept(child store.Entry) bool {
	j, since := child.Value, child.Stored
	switch {
	case j.Pin == nil || j.Pin.Node == "" || j.State != machine.Pending && !j.State.Delayed():
		return false
	case j.State.Delayed() && j.Due.After(since):
		since = j.Due
	}
	return k.opts.Store.Clock.Now().Sub(since) >= overslept
}

const (
	// rarestRing is how long a node is left alone at most that was asked before
	// and has not come.
	rarestRing = 30 * time.Second
	// ringsAtOnce bounds how many nodes are asked at a time. One that is frozen
	// takes a second to not answer.
	ringsAtOnce = 64
	// livingFor is how long is believed which nodes are there.
	livingFor = 2 * time.Second
)

// bell asks nodes to look into their mailboxes: each one at a time, and more rarely
// the longer it does not help. Those that are not there are not asked: they look when
// they come.
type bell struct {
	keeper *Keeper
	asking errgroup.Group

	reading chan struct{} // has an element while somebody reads or looks at what is living
	living  map[string]uint64
	read    time.Time // when living began to be

	mu    sync.Mutex
	asked map[string]*ringing // by node
}

// ringing is how a node was asked.
type ringing struct {
	now  bool          // it is being asked
	next time.Time     // when it may be again
	wait time.Duration // how long after the last time
}

// ring asks those of some nodes that it is time for, and does not wait until they
// have answered.
func (b *bell) ring(ctx context.Context, idle map[string]struct{}) {
	living, err := b.there(ctx, time.Time{})
	if err != nil {
		b.log(ctx, "", err)
		return
	}
	for node := range idle {
		if _, there := living[node]; there && b.due(node, time.Now()) {
			asked := b.asking.TryGo(func() error {
				b.ask(ctx, node)
				return nil
			})
			if !asked {
				b.done(node, true)
			}
		}
	}
}

// there returns the nodes that have been there within the last seconds, and since some
// time. One at a time reads them, and nobody else waits for that but who needs them.
func (b *bell) there(ctx context.Context, since time.Time) (map[string]uint64, error) {
	select {
	case b.reading <- struct{}{}:
		defer func() { <-b.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b.living != nil && time.Since(b.read) < livingFor && !b.read.Before(since) {
		return b.living, nil
	}
	began := time.Now()
	living, err := nodes.Living(ctx, b.keeper.pub, b.keeper.opts.Namespace)
	if err != nil {
		return nil, err
	}
	b.living, b.read = living, began
	b.forget()
	return living, nil
}

// forget forgets who was asked long ago: it has come for what it has.
func (b *bell) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for node, r := range b.asked {
		if !r.now && time.Since(r.next) > rarestRing {
			delete(b.asked, node)
		}
	}
}

// due reports whether a node may be asked now, and notes that it is.
func (b *bell) due(node string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.asked[node]
	if r == nil {
		r = &ringing{wait: firstPoll}
		b.asked[node] = r
	}
	if r.now || now.Before(r.next) {
		return false
	}
	r.now, r.next = true, now.Add(r.wait)
	r.wait = min(2*r.wait, rarestRing)
	return true
}

// done notes that a node is not being asked any more. One that was not may be at once.
func (b *bell) done(node string, unasked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if unasked {
		delete(b.asked, node)
		return
	}
	b.asked[node].now = false
}

// ask asks one node. It is asked again if it does not hear, as long as it does not
// come.
func (b *bell) ask(ctx context.Context, node string) {
	defer b.done(node, false)
	if b.keeper.opts.Owner.Valid() {
		if err := b.keeper.opts.Asker.Look(ctx, node); err != nil {
			b.log(ctx, node, err)
		}
	}
}

func (b *bell) log(ctx context.Context, node string, err error) {
	b.keeper.opts.Logger.Log(ctx, slog.LevelDebug, "node could not be asked to look into its mailbox", "node", node, "err", err)
}

// wait returns when nobody is being asked any more.
func (b *bell) wait() { _ = b.asking.Wait() } // it returns no error
