package schedules

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

// Info is a schedule as users see it. Its JSON is stable. Times are in UTC; what is
// not there is null.
type Info struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"` // of the definition
	State    State  `json:"state"`
	Note     string `json:"note"`   // why it is paused or has halted, or whatever people wrote
	Target   string `json:"target"` // what its jobs are: job, broadcast or shards
	Kind     string `json:"kind"`   // of its jobs
	Queue    string `json:"queue"`  // of its jobs
	// Definition is what was applied. It is null if that cannot be used.
	Definition *spec.Schedule `json:"definition"`
	Changed    *time.Time     `json:"changed_at"` // the definition
	Next       *time.Time     `json:"next_at"`    // the tick to come; of a fixed delay it is known when the last job has ended
	LastAt     *time.Time     `json:"last_at"`    // the last tick that has made a job
	LastJob    *string        `json:"last_job"`   // its job
	Number     int64          `json:"number"`     // how many ticks there were, those included that made no job
	Made       int64          `json:"made"`       // how many of them made a job
	Failures   int            `json:"failures"`   // in a row, if it halts after some
	Running    []string       `json:"running"`    // jobs that have a turn, if there is a bound on them
	Waiting    []string       `json:"waiting"`    // jobs that wait for one
	// Problem is why the definition cannot be used, or empty.
	Problem string `json:"problem,omitempty"`
}

// State says whether a schedule ticks.
type State string

// The states of a schedule.
const (
	Active   State = "active"   // it ticks
	Paused   State = "paused"   // somebody has paused it
	Halted   State = "halted"   // so many jobs have failed in a row that it paused itself
	Ended    State = "ended"    // there is no tick to come any more
	Unusable State = "unusable" // its definition cannot be used, see Info.Problem
)

// Get returns the schedule of a name, from the leader. It returns [ErrNotFound] for
// one that is not there.
func (s *Schedules) Get(ctx context.Context, schedule string) (Info, error) {
	if err := check("look at", schedule); err != nil {
		return Info{}, err
	}
	entry, err := s.definition(ctx, schedule)
	if err == nil {
		err = s.clock.Fresh(ctx)
	}
	if err != nil {
		return Info{}, failed("look at", schedule, err)
	}
	cursor, err := s.cursors.Get(ctx, entry.Key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return Info{}, failed("look at", schedule, err)
	}
	return describe(entry, cursor.Value, s.clock.Now()), nil
}

// ListOptions says which schedules to list. The zero value of a field means its
// default.
type ListOptions struct {
	// After leaves out the names up to this one, which need not be there: whoever
	// reads page by page gives the last name that he has. Default: none is left out.
	After string
	// Limit is how many to list. Default: all.
	Limit int
}

// List returns schedules, by name. It may be some milliseconds behind.
func (s *Schedules) List(ctx context.Context, opts ListOptions) ([]Info, error) {
	if opts.Limit < 0 {
		return nil, fmt.Errorf("engine: list schedules: limit is %d: use 1 or more, or 0 for all", opts.Limit)
	}
	list, err := s.list(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("engine: list schedules: %w", err)
	}
	return list, nil
}

func (s *Schedules) list(ctx context.Context, opts ListOptions) ([]Info, error) {
	if err := s.clock.Fresh(ctx); err != nil {
		return nil, err
	}
	stored, found, err := s.page(ctx, opts)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(a, b kv.Entry[scheduler.Stored]) int { return cmp.Compare(a.Key, b.Key) })
	cursors := make(map[string]tick.Cursor, len(found))
	for _, entry := range found {
		cursors[entry.Key] = entry.Value
	}
	now, list := s.clock.Now(), make([]Info, len(stored))
	for i, entry := range stored {
		list[i] = describe(entry, cursors[entry.Key], now)
	}
	return list, nil
}

// page reads definitions and cursors: all, or those of a page. Of the others it reads
// the keys, to know which they are.
func (s *Schedules) page(ctx context.Context, opts ListOptions) (stored []kv.Entry[scheduler.Stored], cursors []kv.Entry[tick.Cursor], err error) {
	if opts == (ListOptions{}) {
		if stored, err = s.stored.ListStale(ctx, scheduler.Key("*")); err == nil {
			cursors, err = s.cursors.ListStale(ctx, scheduler.Key("*"))
		}
		return stored, cursors, err
	}
	all, err := s.keys.ListStale(ctx, scheduler.Key("*"))
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for _, entry := range all {
		if opts.After == "" || entry.Key > scheduler.Key(opts.After) {
			keys = append(keys, entry.Key)
		}
	}
	slices.Sort(keys)
	if opts.Limit > 0 {
		keys = keys[:min(opts.Limit, len(keys))]
	}
	if stored, err = s.stored.GetManyStale(ctx, keys); err == nil {
		cursors, err = s.cursors.GetManyStale(ctx, keys)
	}
	return stored, cursors, err
}

// describe joins what people have said about a schedule and where it stands.
func describe(entry kv.Entry[scheduler.Stored], c tick.Cursor, now time.Time) Info {
	info := Info{
		Name: strings.TrimPrefix(entry.Key, scheduler.Key("")), Revision: entry.Revision, State: Active,
		Changed: moment(entry.Stored), Running: []string{}, Waiting: []string{},
	}
	d, err := scheduler.Compile(entry)
	if err != nil {
		info.State, info.Problem = Unusable, oneLine(err)
		return info
	}
	doc := d.Schedule
	doc.Revision = entry.Revision
	info.Definition, info.Note, info.Kind, info.Queue = &doc, doc.Note, doc.TargetKind(), doc.TargetQueue()
	info.Target = targetOf(doc)
	if !c.Life.Equal(d.Created) {
		c = tick.Cursor{}
	}
	info.Made, info.Failures = c.Made, c.Failures
	info.Number = max(c.Number-1, 0)
	info.Running, info.Waiting = append(info.Running, c.Holders...), append(info.Waiting, c.Queue...)
	if c.LastID != "" {
		info.LastAt, info.LastJob = moment(c.LastAt), &c.LastID
	}
	info.rest(doc, c)
	if info.State == Active {
		info.foresee(doc, c, later(now, d.Since))
	}
	return info
}

// targetOf says what the jobs of a schedule are.
func targetOf(doc spec.Schedule) string {
	switch {
	case doc.Broadcast != "":
		return "broadcast"
	case doc.Shards > 0:
		return "shards"
	}
	return "job"
}

// rest says whether the schedule rests, and why.
func (info *Info) rest(doc spec.Schedule, c tick.Cursor) {
	switch {
	case doc.IsPaused():
		info.State = Paused
	case c.Halted != nil && c.Halted.Revision == info.Revision:
		info.State = Halted
		if info.Note == "" {
			info.Note = fmt.Sprintf("%d jobs in a row failed", c.Halted.Failures)
		}
	}
}

// foresee says which tick comes next: the one of the cursor, if that knows the
// definition, and otherwise the one that the owner will find. Of a fixed delay whose
// last job goes on nobody knows it.
func (info *Info) foresee(doc spec.Schedule, c tick.Cursor, after time.Time) {
	going := doc.After > 0 && c.LastID != "" && c.LastEnd.IsZero()
	next := c.Next
	if c.Revision != info.Revision && !going {
		p, err := plan{doc: doc, after: after, made: c.Made}.preview(1)
		if err != nil {
			info.State, info.Problem = Unusable, oneLine(err)
			return
		}
		if next = (time.Time{}); len(p.Ticks) > 0 {
			next = p.Ticks[0].At
		}
	}
	if info.Next = moment(next); next.IsZero() && !going {
		info.State = Ended
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
