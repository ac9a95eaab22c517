package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/name"
)

// A job with children is its parent's record and one record for each of its
// shares, under an ID that follows from the parent's and the part's. So who makes
// a child, when and how often, makes no difference, and everything that is done
// for a family can be done by anybody, from what is stored. A child says which
// life of the parent's ID it belongs to; it is of no use without it, and goes with
// it.

// atOnce is how many children are looked at, or changed, at the same time.
const atOnce = 64

// ErrParent is returned for what cannot be done to a child by itself, because of
// how its parent stands.
var ErrParent = errors.New("store: the job belongs to another")

// PartName returns how the child of a share is called among its parent's: by its
// node, or by its number if the job is a sharded one.
func PartName(fan machine.Fan, shares []machine.Share, i int) string {
	if fan.Shards {
		return strconv.Itoa(i)
	}
	return shares[i].Node
}

// ChildID returns the ID of the child that a job has for a part. The parent's ID
// must be valid.
func ChildID(parent, part string) string {
	queue, _, _ := name.SplitJobID(parent)
	return name.JobID(queue, name.Child(parent, part))
}

// child returns a new child of a job, as it is created. One that is created after
// its parent was redriven has no redrive left to come.
func (s *Store) child(parent machine.Job, shares []machine.Share, i int) machine.Job {
	share, part := shares[i], PartName(*parent.Fan, shares, i)
	pin := &machine.Pin{Node: share.Node, Incarnation: share.Incarnation, Else: parent.Fan.OnLost}
	if pin.Else == "" {
		pin.Else = machine.ElseFail
	}
	of := &machine.Parent{ID: parent.ID, Created: parent.Created, Part: part}
	if parent.Fan.Shards {
		key := plan.Key(plan.Strategy(parent.Fan.Strategy), parent.Kind, share.Parameter, i)
		pin.Rule, pin.Else = &machine.Rule{Select: parent.Fan.Select, Key: key}, machine.ElseWait
		of.Shard = &machine.Shard{Index: i, Total: len(shares), Parameter: share.Parameter}
	}
	return machine.Job{
		ID: ChildID(parent.ID, part), Kind: parent.Kind, State: machine.Pending,
		MaxAttempts: parent.MaxAttempts, Retry: parent.Retry, Trace: parent.Trace,
		Pin: pin, Parent: of, Created: s.Clock.Now(), Redriven: parent.Redriven,
	}
}

// Shares returns the shares of a job with children, wherever they are. They never
// change once they are there.
func (s *Store) Shares(ctx context.Context, j machine.Job) ([]machine.Share, error) {
	if j.Fan == nil || j.Fan.SharesBlob == nil {
		return sharesOf(j), nil
	}
	data, err := s.Fetch(ctx, j.Fan.SharesBlob)
	if err != nil {
		return nil, err
	}
	var shares []machine.Share
	if err := json.Unmarshal(data, &shares); err != nil {
		return nil, fmt.Errorf("store: read the shares of job %s: %w", j.ID, err)
	}
	return shares, nil
}

func sharesOf(j machine.Job) []machine.Share {
	if j.Fan == nil {
		return nil
	}
	return j.Fan.Shares
}

// Children returns some of the children of a job, in the order of which. There is
// none, which is a zero entry, where [Store.Fork] has still to make one: it is
// missing, or is to run once more since its parent was redriven. Any replica
// answers, so what it says may be old.
func (s *Store) Children(ctx context.Context, parent Entry, shares []machine.Share, which []int) ([]Entry, error) {
	list, err := s.childrenStale(ctx, parent.Value, shares, which)
	for n, child := range list {
		if child.Key != "" && child.Value.RunsAgain(parent.Value) {
			list[n] = Entry{}
		}
	}
	return list, err
}

// childrenStale returns the records of some of the children of a job, in the order of
// which, or a zero entry where there is none of this life of the parent's ID.
func (s *Store) childrenStale(ctx context.Context, parent machine.Job, shares []machine.Share, which []int) ([]Entry, error) {
	keys, at := make([]string, len(which)), make(map[string]int, len(which))
	for n, i := range which {
		keys[n] = ChildID(parent.ID, PartName(*parent.Fan, shares, i))
		at[keys[n]] = n
	}
	list := make([]Entry, len(which))
	for try := 0; ; try++ {
		found, err := s.jobs.GetManyStale(ctx, keys)
		for _, child := range found {
			if child.Value.ChildOf(parent) {
				list[at[child.Key]] = child
			}
		}
		if err == nil {
			return list, nil
		}
		clear(list)
		if !errors.Is(err, direct.ErrLost) || s.pause(ctx, try) != nil {
			return list, fmt.Errorf("store: read the children of job %s: %w", parent.ID, err)
		}
	}
}

// eachChild calls visit for all children of a job, for many at the same time, and ends
// with the first error. A child of another life of the parent's ID is not visited. If
// stale is set, any replica answers, but for what it does not have.
func (s *Store) eachChild(ctx context.Context, parent machine.Job, stale bool, visit func(context.Context, Entry) error) error {
	shares, err := s.Shares(ctx, parent)
	if err != nil {
		return err
	}
	for from := 0; from < len(shares); from += direct.Max {
		which := make([]int, min(direct.Max, len(shares)-from))
		for n := range which {
			which[n] = from + n
		}
		children := make([]Entry, len(which))
		if stale {
			if children, err = s.childrenStale(ctx, parent, shares, which); err != nil {
				return err
			}
		}
		visits, ctx := errgroup.WithContext(ctx)
		visits.SetLimit(atOnce)
		for n, i := range which {
			visits.Go(func() error {
				child := children[n]
				if child.Key == "" {
					var err error
					child, err = s.Get(ctx, ChildID(parent.ID, PartName(*parent.Fan, shares, i)))
					if err != nil {
						return passOver(err)
					}
				}
				if !child.Value.ChildOf(parent) {
					return nil
				}
				return visit(ctx, child)
			})
		}
		if err := visits.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// closedFamily returns an error that wraps [ErrNotEnded] if a child of a job has not
// ended. If stale is set, it may say that of one that was redriven a moment ago.
func (s *Store) closedFamily(ctx context.Context, parent machine.Job, stale bool) error {
	if complete(parent) {
		return nil
	}
	err := s.eachChild(ctx, parent, stale, func(_ context.Context, child Entry) error {
		if child.Value.State.Final() {
			return nil
		}
		return fmt.Errorf("%w: its part %s is %s: wait until it has ended", ErrNotEnded, child.Value.Parent.Part, child.Value.State)
	})
	if blobs.Gone(err) { // nobody can tell who they were: see LackParent
		return nil
	}
	return err
}

// complete reports whether a job says that all its children have ended.
func complete(parent machine.Job) bool {
	if parent.Fan == nil || parent.Fan.Total == 0 {
		return true
	}
	goal := parent.Fan.Done
	return parent.State == machine.Succeeded && (goal == machine.GoalAll || goal == machine.GoalQuorum)
}

// awaited reports whether the parent of a child waits for it: it is there, in the
// life that the child is of, and has not ended. The leader answers, and is asked again
// until it does: an item would be left for a while otherwise. What [Store.Input] wants
// to know is kept.
func (s *Store) awaited(ctx context.Context, child machine.Job) (bool, error) {
	parent, err := s.read(ctx, child.Parent.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case !parent.Value.State.Known():
		return false, fmt.Errorf("store: job %s is %s: %w", parent.Key, parent.Value.State, errNewer)
	}
	j := parent.Value
	if !child.Parent.Is(j) || j.State != machine.Waiting {
		return false, nil
	}
	if j.InputBlob == nil {
		s.parent.Store(&machine.Job{ID: j.ID, Created: j.Created, Input: j.Input})
	}
	return true, nil
}

// orphaned reports whether the parent of a child is gone, or another job has its
// ID. The leader answers.
func (s *Store) orphaned(ctx context.Context, child machine.Job) (bool, error) {
	parent, err := s.Get(ctx, child.Parent.ID)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return err == nil && !child.Parent.Is(parent.Value), err
}

// Input returns the input of a job, wherever it is: that of a child is its
// parent's. It returns an error that wraps [ErrNotFound] if the parent is gone, and
// [blobs.ErrMissing] if the input is. An input never changes in the life of a job, so
// that of a child is taken from what its claim has read, unless another parent's was
// read since.
func (s *Store) Input(ctx context.Context, j machine.Job) (json.RawMessage, error) {
	if j.Parent != nil {
		if read := s.parent.Load(); read != nil && j.Parent.Is(*read) {
			return bytes.Clone(read.Input), nil // the caller's own
		}
		parent, err := s.Get(ctx, j.Parent.ID)
		if err == nil && !j.Parent.Is(parent.Value) {
			err = fmt.Errorf("%w: %s, as it was when its part %s was made", ErrNotFound, j.Parent.ID, j.Parent.Part)
		}
		if err != nil {
			return nil, err
		}
		j = parent.Value
	}
	if j.InputBlob == nil {
		return j.Input, nil
	}
	return s.Fetch(ctx, j.InputBlob)
}

// Conclude ends a waiting job, as somebody has counted its children, and carries
// out what follows. It returns the job as it is stored then: whoever finds that it
// goes on, or ended otherwise, reads and counts again. A large result is stored
// before, as a blob.
//
// If the process dies before the write, the job waits, and the next owner counts.
// If it dies afterwards, the record says how it ended, and what is owed is carried
// out by whoever meets it: its children start nothing any more, since each reads
// its parent when it is claimed.
func (s *Store) Conclude(ctx context.Context, parent Entry, ev machine.Concluded) (Entry, error) {
	if len(ev.Result) > s.inline() {
		b, err := s.stow(ctx, parent.Key, ev.Result)
		if err != nil {
			return parent, err
		}
		ev.Result, ev.Blob = nil, b
	}
	now, err := s.moveNaming(ctx, parent, ev, ev.Blob)
	if err != nil || !now.Value.State.Final() {
		return now, err
	}
	return now, s.pay(ctx, now, passing)
}
