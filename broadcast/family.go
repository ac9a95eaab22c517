package broadcast

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/kv"
)

const (
	// batch is how many children are read at a time.
	batch = 1024
	// sureAtOnce bounds how many children the leader is asked for at a time.
	sureAtOnce = 64
	// dispatch is how long whoever submits a job may take to make its children,
	// before the keeper does.
	dispatch = 5 * time.Second
)

// family is a waiting job and what is known of its children: some tens of bytes for
// each.
type family struct {
	id string

	// Of the keeper, under its lock.
	heard  []store.Ending // since it was tended last
	forked bool           // its children were made, or somebody else has to
	missed bool           // there may have been more to hear
	known  bool           // it was read
	busy   bool           // it is tended, or about to be
	again  bool           // there was news meanwhile
	due    time.Time      // when to tend it though nothing was heard
	grown  time.Time      // when the reconciler knows all of its children
	// verdict is when a node was found dead since it was tended last, or zero.
	verdict time.Time

	// Of whoever tends it. There is no tally as long as it was not read.
	parent store.Entry // as the leader had it, without its input
	shares []machine.Share
	tally  *plan.Tally
	made   uint64        // the revision of the parent whose first children were made
	births births        // what was made last
	born   time.Time     // when children were made last, as far as is known
	wait   time.Duration // between two polls
	pollAt time.Time     // when to poll; after an error, when to read again
	tries  int           // that failed
}

// births is which children were made last, so that those that are missing again and
// again, whatever takes them, are made more and more rarely.
type births struct {
	revision uint64 // of the parent
	which    []int
	at       time.Time
	wait     time.Duration // from then on
}

func (b *births) are(revision uint64, which []int) bool {
	return b.revision == revision && slices.Equal(b.which, which)
}

// next returns when children may be made. It is in the past for others than the last.
func (b *births) next(revision uint64, which []int) time.Time {
	if !b.are(revision, which) {
		return time.Time{}
	}
	return b.at.Add(b.wait)
}

// note notes that children were made.
func (b *births) note(revision uint64, which []int) {
	wait := shortest
	if b.are(revision, which) {
		wait = min(2*b.wait, longest)
	}
	*b = births{revision, slices.Clone(which), time.Now(), wait}
}

// news is what was heard of a family since it was tended last.
type news struct {
	heard          []store.Ending
	forked, missed bool
	verdict        time.Time // or zero
}

// fail forgets what is known, to be read again a little later.
func (f *family) fail() {
	f.parent, f.shares, f.tally = store.Entry{}, nil, nil
	f.pollAt = time.Now().Add(min(shortest<<min(f.tries, 10), longest))
	f.tries++
}

// part returns the name of a child among its parent's.
func (f *family) part(i int) string { return store.PartName(*f.parent.Value.Fan, f.shares, i) }

// index returns which child has a name. The nodes of a broadcast are in the order
// of their IDs.
func (f *family) index(part string) (int, bool) {
	if f.parent.Value.Fan.Shards {
		i, err := strconv.Atoi(part)
		return i, err == nil && i >= 0 && i < len(f.shares)
	}
	return slices.BinarySearchFunc(f.shares, part, func(s machine.Share, part string) int {
		return strings.Compare(s.Node, part)
	})
}

// counts returns the state in which a child counts. It is as good as not there if it
// is of another life of its parent, or has ended in one without success: then it has
// to be made, or to go on.
func (f *family) counts(child store.Entry) machine.State {
	j, parent := child.Value, f.parent.Value
	if !j.ChildOf(parent) || j.RunsAgain(parent) {
		return ""
	}
	return j.State
}

// step does what there is to do for a family, and reports whether the parent does
// not wait any more. After an error everything is read anew.
//
// If the process dies anywhere here, what was stored is a child more or the end of
// the parent: the next keeper reads both.
func (k *Keeper) step(ctx context.Context, f *family, n news) (over bool, err error) {
	if !k.opts.Owner.Valid() {
		return false, kv.ErrLeaseLost
	}
	if f.tally == nil || n.forked {
		if gone, err := k.load(ctx, f); gone || err != nil {
			return gone, err
		}
	}
	if n.forked {
		f.made, f.born = f.parent.Revision, time.Now()
	}
	if err := k.note(ctx, f, n.heard); err != nil {
		return false, err
	}
	now := time.Now()
	if len(n.heard) > 0 {
		f.soon(now)
	}
	if n.missed || !n.verdict.IsZero() || !now.Before(f.pollAt) {
		if gone, err := k.poll(ctx, f, n.verdict); gone || err != nil {
			return gone, err
		}
	}
	over, err = k.advance(ctx, f)
	if err == nil {
		f.tries = 0
	}
	return over, err
}

// load reads a family, unless it is known in this life of its parent, and reports
// whether the parent does not wait.
func (k *Keeper) load(ctx context.Context, f *family) (gone bool, err error) {
	parent, gone, err := k.current(ctx, f)
	if gone || err != nil || f.tally != nil && parent.Revision == f.parent.Revision {
		return gone, err
	}
	shares, err := k.opts.Store.Shares(ctx, parent.Value)
	if blobs.Gone(err) {
		return true, k.abandon(ctx, parent, err)
	}
	if err != nil {
		return false, err
	}
	parent.Value.Input, parent.Value.Fan.Shares = nil, nil // they may be large
	f.parent, f.shares = parent, shares
	f.tally = plan.NewTally(*parent.Value.Fan, len(shares))
	all := make([]int, len(shares))
	for i := range all {
		all[i] = i
	}
	if err := k.read(ctx, f, all, nil); err != nil {
		return false, err
	}
	f.wait = 0
	f.soon(time.Now())
	return false, nil
}

// current reads the parent of a family from the leader, and reports whether it is not
// one that waits, or one that a newer build has to keep.
func (k *Keeper) current(ctx context.Context, f *family) (parent store.Entry, gone bool, err error) {
	parent, err = k.opts.Store.Get(ctx, f.id)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUnreadable):
		return store.Entry{}, true, nil
	case err != nil:
		return store.Entry{}, false, err
	case parent.Value.State == machine.Waiting && parent.Value.Fan != nil:
		return parent, false, nil
	}
	return parent, true, k.recall(ctx, f, parent)
}

// recall has the children cancelled of a parent that has ended, if some have not:
// whoever ended it may have died before.
func (k *Keeper) recall(ctx context.Context, f *family, parent store.Entry) error {
	j := parent.Value
	if f.tally == nil || !j.State.Final() || j.State == machine.Removing || len(f.tally.Open()) == 0 {
		return nil
	}
	return k.opts.Store.Owe(ctx, parent)
}

// read reads some children and notes how they are. If visit is not nil it is called
// with each that is there, and again if it was read once more: any replica may answer
// first, and where it knows less than was heard, the leader is asked.
func (k *Keeper) read(ctx context.Context, f *family, which []int, visit func(int, store.Entry)) error {
	for chunk := range slices.Chunk(which, batch) {
		children, err := k.opts.Store.Children(ctx, f.parent, f.shares, chunk)
		if err != nil {
			return err
		}
		var behind []int
		for n, i := range chunk {
			s := f.counts(children[n])
			if f.tally.State(i).Final() && !s.Final() {
				behind = append(behind, i)
				continue
			}
			f.tally.Set(i, s)
			if visit != nil && s != "" {
				visit(i, children[n])
			}
		}
		if err := k.sure(ctx, f, behind, visit); err != nil {
			return err
		}
	}
	return nil
}

// sure is read by the leader, one child after the other.
func (k *Keeper) sure(ctx context.Context, f *family, which []int, visit func(int, store.Entry)) error {
	children := make([]store.Entry, len(which))
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(sureAtOnce)
	for n, i := range which {
		g.Go(func() (err error) {
			children[n], err = k.opts.Store.Get(reading, store.ChildID(f.id, f.part(i)))
			if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for n, i := range which {
		s := f.counts(children[n])
		f.tally.Set(i, s)
		if visit != nil && s != "" {
			visit(i, children[n])
		}
	}
	return nil
}

// note takes in which children are said to have ended. Where the end of one leads to
// another one the leader is asked whether it is so: what was said may be of a life
// before.
func (k *Keeper) note(ctx context.Context, f *family, heard []store.Ending) error {
	var doubtful []int
	for _, e := range heard {
		i, ok := f.index(e.Part)
		switch {
		case !ok || !e.State.Final():
		case f.parent.Value.Fan.MaxParallel > 0:
			doubtful = append(doubtful, i)
		default:
			f.tally.Set(i, e.State)
		}
	}
	return k.sure(ctx, f, doubtful, nil)
}

// advance makes the children that are missing, or ends the parent, if it is time for
// that. It reports whether the parent does not wait any more.
func (k *Keeper) advance(ctx context.Context, f *family) (over bool, err error) {
	if decided, _ := f.tally.Decided(); decided {
		if over, err := k.conclude(ctx, f); over || err != nil {
			return over, err
		}
	}
	missing := f.tally.Next()
	if len(missing) == 0 {
		f.made = f.parent.Revision
		return false, nil
	}
	if f.made != f.parent.Revision && k.opts.Store.Clock.Now().Sub(f.parent.Stored) < dispatch {
		return false, nil // whoever submitted it is about to make them
	}
	if next := f.births.next(f.parent.Revision, missing); time.Now().Before(next) {
		f.pollAt = next
		return false, nil // they were just made, and are gone
	}
	parent, gone, err := k.same(ctx, f)
	if gone || err != nil {
		return gone, err
	}
	if err := k.opts.Store.Fork(ctx, parent, f.shares, missing); err != nil {
		return false, err
	}
	f.births.note(f.parent.Revision, missing)
	for _, i := range missing {
		f.tally.Set(i, machine.Pending)
	}
	f.made, f.born = f.parent.Revision, time.Now()
	f.soon(f.born)
	return false, nil
}

// same is current, right before something is written that follows from what is known
// of a family: of this life of its parent.
func (k *Keeper) same(ctx context.Context, f *family) (parent store.Entry, gone bool, err error) {
	parent, gone, err = k.current(ctx, f)
	switch {
	case gone || err != nil:
		return parent, gone, err
	case parent.Revision != f.parent.Revision:
		return parent, false, errMoved
	case !k.opts.Owner.Valid():
		return parent, false, kv.ErrLeaseLost
	}
	return parent, false, nil
}

// errMoved says that a parent has another life by now.
var errMoved = errors.New("the record has changed")
