package broadcast

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/kv"
)

// mostNamed is how many children an error names.
const mostNamed = 5

// The codes of errors with which a waiting job ends.
const (
	// CodeIncomplete: not enough of its children succeeded.
	CodeIncomplete = "incomplete"
	// CodeTooLarge: the results of its shards are too large together.
	CodeTooLarge = "too_large"
	// CodeMissing: what is needed of what it stored is not there any more.
	CodeMissing = "missing"
)

// conclude ends the parent of a family in which that is decided by what was heard, if
// it is so by what is stored, and reports whether it did, or somebody else has.
//
// If the process dies before the write, the next keeper concludes; if it dies
// afterwards, what the end owes is carried out by whoever meets the record. If the
// answer is lost, the parent is read once more.
func (k *Keeper) conclude(ctx context.Context, f *family) (over bool, err error) {
	results, err := k.verify(ctx, f)
	if err != nil {
		return false, err
	}
	decided, success := f.tally.Decided()
	if !decided {
		return false, nil
	}
	ev := machine.Concluded{At: k.opts.Store.Clock.Now()}
	if !success {
		ev.Tally, ev.Error = f.sum()
	} else {
		ev.Tally = f.tally.Sum(f.part)
		if ev.Result, ev.Error, err = k.join(ctx, results); err != nil {
			return false, err
		}
	}
	parent, gone, err := k.same(ctx, f)
	if gone || err != nil {
		return gone, err
	}
	return true, k.end(ctx, parent, ev)
}

// end stores the end of a parent.
func (k *Keeper) end(ctx context.Context, parent store.Entry, ev machine.Concluded) error {
	now, err := k.opts.Store.Conclude(ctx, parent, ev)
	if err == nil && !now.Value.State.Final() {
		err = errMoved
	}
	if err == nil {
		k.opts.Logger.DebugContext(ctx, "children were counted", "job", parent.Key, "tally", ev.Tally)
	}
	return err
}

// abandon ends a parent of which nobody can tell any more which children it has.
func (k *Keeper) abandon(ctx context.Context, parent store.Entry, why error) error {
	if !k.opts.Owner.Valid() {
		return kv.ErrLeaseLost
	}
	return k.end(ctx, parent, machine.Concluded{
		At: k.opts.Store.Clock.Now(), Tally: machine.Tally{Unstarted: parent.Value.Fan.Total},
		Error: &machine.Error{Code: CodeMissing, Message: "the list of its parts is not there any more: " + why.Error()},
	})
}

// result is what a shard returned.
type result struct {
	value json.RawMessage
	blob  *machine.Blob
}

func (r result) size() int {
	if r.blob != nil {
		return r.blob.Size
	}
	return len(r.value)
}

// verify reads all children that were made. It returns the results of shards, by
// number, or nothing for a broadcast: those stay in its parts.
func (k *Keeper) verify(ctx context.Context, f *family) ([]result, error) {
	var made []int
	for i := range f.shares {
		if f.tally.State(i) != "" {
			made = append(made, i)
		}
	}
	if !f.parent.Value.Fan.Shards {
		return nil, k.read(ctx, f, made, nil)
	}
	results := make([]result, len(f.shares))
	err := k.read(ctx, f, made, func(i int, child store.Entry) {
		results[i] = result{child.Value.Result, child.Value.ResultBlob}
	})
	return results, err
}

// fetchAtOnce bounds how many large results are read at a time.
const fetchAtOnce = 8

// join returns the results of all shards as one, or why there is none.
func (k *Keeper) join(ctx context.Context, results []result) (json.RawMessage, *machine.Error, error) {
	if results == nil {
		return nil, nil, nil
	}
	size := len("[]") + len(results)
	for _, r := range results {
		size += max(r.size(), len("null"))
	}
	if size > store.MaxValue {
		return nil, &machine.Error{Code: CodeTooLarge, Message: fmt.Sprintf(
			"the results of all shards take %d bytes, and %d are allowed: let each return less, such as the name of what it stored", size, store.MaxValue)}, nil
	}
	var g errgroup.Group
	g.SetLimit(fetchAtOnce)
	for i, r := range results {
		if r.blob != nil {
			g.Go(func() (err error) {
				if results[i].value, err = k.opts.Store.Fetch(ctx, r.blob); err != nil {
					err = fmt.Errorf("result of shard %d: %w", i, err)
				}
				return err
			})
		}
	}
	if err := g.Wait(); blobs.Gone(err) {
		return nil, &machine.Error{Code: CodeMissing, Message: err.Error()}, nil
	} else if err != nil {
		return nil, nil, err
	}
	list := make([]byte, 0, size)
	for i, r := range results {
		list = append(list, "[,"[min(i, 1)])
		if len(r.value) == 0 {
			r.value = json.RawMessage("null")
		}
		list = append(list, r.value...)
	}
	return append(list, ']'), nil, nil
}

// sum returns how the children of a family without success ended, and says so in one
// line.
func (f *family) sum() (machine.Tally, *machine.Error) {
	fan := f.parent.Value.Fan
	var missed []string
	t := f.tally.Sum(func(i int) string {
		name, how := f.part(i), f.tally.State(i)
		if !how.Final() {
			how = machine.Cancelled // by the end of the parent
		}
		if len(missed) < mostNamed {
			missed = append(missed, fmt.Sprintf("%s %s", f.called(i), how))
		}
		return name
	})
	what := "parts"
	if fan.Shards {
		what = "shards"
	}
	if len(f.shares) == 0 {
		return t, &machine.Error{Code: CodeIncomplete, Message: "it has no " + what + ": no node was there that could have one"}
	}
	text := fmt.Sprintf("%d of %d %s succeeded", t.Succeeded, len(f.shares), what)
	if need := f.tally.Need(); need < len(f.shares) {
		text += fmt.Sprintf(", and %d had to", need)
	}
	if len(missed) > 0 {
		text += ": " + strings.Join(missed, ", ")
	}
	if more := t.Failed + t.Lost + t.Cancelled - len(missed); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if t.Unstarted > 0 {
		text += fmt.Sprintf("; %d not started", t.Unstarted)
	}
	return t, &machine.Error{Code: CodeIncomplete, Message: text}
}

// called returns how an error calls a child.
func (f *family) called(i int) string {
	if f.parent.Value.Fan.Shards {
		return fmt.Sprintf("shard %d", i)
	}
	return f.part(i)
}
