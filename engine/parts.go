package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// Broadcast is a broadcast that was dispatched. Out is the type of a part's result.
type Broadcast[Out any] struct {
	eng *Engine
	// ID is the broadcast's ID, <queue>.<local>.
	ID string
	// Created is false if the broadcast was there before, by its ID.
	Created bool
}

// Part is one node's share of a broadcast that has ended.
type Part[Out any] struct {
	PartInfo
	// Value is the result of a part that succeeded.
	Value Out
}

// Wait waits until the broadcast has ended and returns its parts, in the order of
// their nodes. If it did not succeed they come with a [*JobError]. Of one that is done
// before all of its parts have ended, some may still be about to be cancelled.
func (b *Broadcast[Out]) Wait(ctx context.Context) ([]Part[Out], error) {
	if _, err := b.eng.Wait(ctx, b.ID); err != nil {
		return nil, err
	}
	info, err := b.eng.GetBroadcast(ctx, b.ID)
	if err != nil {
		return nil, err
	}
	parts := make([]Part[Out], len(info.Parts))
	for i, p := range info.Parts {
		parts[i].PartInfo = p
		if len(p.Result) == 0 {
			continue
		}
		if err := json.Unmarshal(p.Result, &parts[i].Value); err != nil {
			return nil, fmt.Errorf("engine: wait for %s: the result of %s does not fit %T: %w", b.ID, p.Node, parts[i].Value, err)
		}
	}
	return parts, info.Err()
}

// Get reads the broadcast with its parts.
func (b *Broadcast[Out]) Get(ctx context.Context) (BroadcastInfo, error) {
	return b.eng.GetBroadcast(ctx, b.ID)
}

// BroadcastInfo is a broadcast, or a sharded job, as users see it. Its JSON is stable,
// as that of [JobInfo] is.
type BroadcastInfo struct {
	JobInfo
	// Parts are in the order of their nodes, or of the shards' numbers. They are
	// null in lists, and while the job is not due.
	Parts []PartInfo `json:"parts"`
}

// PartInfo is one part of a broadcast, or one shard.
type PartInfo struct {
	// Node has the part, under the incarnation that it had at the dispatch or, if it
	// has started, at the last attempt. A shard may be without one for a while.
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	// State is that of the part's job. One that has none yet is waiting, or cancelled
	// once the broadcast has ended.
	State    string          `json:"state"`
	Attempts []AttemptInfo   `json:"attempts"`
	Started  *time.Time      `json:"started_at"` // of the last attempt
	Ended    *time.Time      `json:"ended_at"`
	Result   json.RawMessage `json:"result"`
	Error    *ErrorInfo      `json:"error"`

	// Shard and Parameter are those of a shard.
	Shard     *int   `json:"shard,omitempty"`
	Parameter string `json:"parameter,omitempty"`
}

// PartID returns the ID of the job that is a part of a broadcast, or a shard: part is
// the node, or the shard's number.
func PartID(id, part string) string { return store.ChildID(id, part) }

// GetBroadcast reads a broadcast or a sharded job with its parts, which may be some
// milliseconds old while it goes on. It returns [ErrNotFound] for one that is not
// there.
func (e *Engine) GetBroadcast(ctx context.Context, id string) (BroadcastInfo, error) {
	if err := checkID(id); err != nil {
		return BroadcastInfo{}, err
	}
	entry, err := e.store.Get(ctx, id)
	if err != nil {
		return BroadcastInfo{}, fmt.Errorf("engine: get broadcast: %w", err)
	}
	if entry.Value.Fan == nil {
		return BroadcastInfo{}, fmt.Errorf("engine: get broadcast: job %s is %s: get it as a job", id, sortOf(entry.Value))
	}
	info := BroadcastInfo{JobInfo: describe(entry)}
	err = e.fetch(ctx, &info.JobInfo, entry.Value)
	if err == nil && entry.Value.State != machine.Scheduled {
		info.Parts, err = e.parts(ctx, entry)
	}
	if err != nil {
		return BroadcastInfo{}, fmt.Errorf("engine: get broadcast: %w", err)
	}
	if why := e.waits(ctx, entry); why != "" {
		info.Wait = &why
	}
	if info.Parts != nil {
		info.Children.count(info.Parts)
	}
	return info, nil
}

// parts returns the parts of a job with children.
func (e *Engine) parts(ctx context.Context, parent store.Entry) ([]PartInfo, error) {
	shares, err := e.store.Shares(ctx, parent.Value)
	if err != nil {
		return nil, err
	}
	which := make([]int, len(shares))
	for i := range which {
		which[i] = i
	}
	children, err := e.store.Children(ctx, parent, shares, which)
	if err != nil {
		return nil, err
	}
	parts := make([]PartInfo, len(shares))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, child := range children {
		parts[i] = describePart(parent.Value, shares, i, child)
		if parent.Value.State.Final() && !child.Value.State.Final() || child.Value.ResultBlob != nil {
			g.Go(func() (err error) {
				parts[i], err = e.readPart(ctx, parent.Value, shares, i)
				return err
			})
		}
	}
	return parts, g.Wait()
}

// readPart reads a part from the leader, and its result if that is not part of the
// record. What is gone stays empty.
func (e *Engine) readPart(ctx context.Context, parent machine.Job, shares []machine.Share, i int) (PartInfo, error) {
	child, err := e.store.Get(ctx, PartID(parent.ID, store.PartName(*parent.Fan, shares, i)))
	if errors.Is(err, ErrNotFound) || err == nil && (child.Value.Parent == nil || !child.Value.Parent.Is(parent)) {
		return describePart(parent, shares, i, store.Entry{}), nil
	}
	if err != nil {
		return PartInfo{}, err
	}
	part := describePart(parent, shares, i, child)
	if child.Value.ResultBlob != nil {
		part.Result, err = e.store.Fetch(ctx, child.Value.ResultBlob)
		if blobs.Gone(err) {
			err = nil
		}
	}
	return part, err
}

// describePart describes a part, whose entry is the zero one if it has no record.
func describePart(parent machine.Job, shares []machine.Share, i int, child store.Entry) PartInfo {
	p := PartInfo{Node: shares[i].Node, Incarnation: shares[i].Incarnation, State: string(machine.Waiting), Attempts: []AttemptInfo{}}
	if parent.Fan.Shards {
		p.Shard, p.Parameter = &i, shares[i].Parameter
	}
	switch {
	case child.Key != "":
		j := describe(child)
		p.State, p.Attempts, p.Started, p.Ended, p.Result, p.Error = j.State, j.Attempts, j.Started, j.Finished, j.Result, j.Error
		if j.Pin != nil {
			p.Node, p.Incarnation = j.Pin.Node, j.Pin.Incarnation
		}
	case parent.State.Final():
		p.State = string(machine.Cancelled)
	}
	return p
}

// Broadcasts returns broadcasts without their parts, the most recently changed first.
// It may be some milliseconds behind.
func (e *Engine) Broadcasts(ctx context.Context, filter BroadcastFilter) ([]BroadcastInfo, error) {
	jobs, err := e.List(ctx, ListOptions{State: filter.State, Queue: filter.Queue, Limit: filter.Limit, broadcasts: true})
	if err != nil {
		return nil, err
	}
	list := make([]BroadcastInfo, len(jobs))
	for i, j := range jobs {
		list[i].JobInfo = j
	}
	return list, nil
}

// BroadcastFilter says which broadcasts are meant. The zero value of a field means
// all.
type BroadcastFilter struct {
	Queue string
	State string
	// Limit is how many to list. Default 100.
	Limit int
}
