package machine

import (
	"encoding/json"
	"slices"
	"time"
)

// Fan makes a job a broadcast or a sharded job: it has no handler of its own, and
// ends when its children have. What a child is for stands in its [Parent].
type Fan struct {
	// Shares are the nodes of a broadcast at its dispatch, which is when it
	// became waiting, or the shards of a sharded job. SharesBlob is in their
	// place if they are too large for the record.
	Shares     []Share `json:"shares,omitempty"`
	SharesBlob *Blob   `json:"shares_blob,omitempty"`
	// Total is how many shares there are. It never changes once they are there.
	Total int `json:"total,omitempty"`

	// Shards is set if the job is a sharded one.
	Shards bool `json:"shards,omitempty"`
	// Strategy is how the shards are placed: see broadcast/plan. Empty: evenly.
	Strategy string `json:"strategy,omitempty"`
	// Select are the labels of the nodes of a broadcast, or of those that may
	// have a shard.
	Select map[string]string `json:"select,omitempty"`
	// OnLost is [ElseFail] or [ElseWait]: what becomes of a part when its node
	// is gone.
	OnLost Else `json:"on_lost,omitempty"`
	// Done says when the job succeeds.
	Done Goal `json:"done,omitempty"`
	// Need is for how many parts [GoalCount] waits.
	Need int `json:"need,omitempty"`
	// MaxParallel is how many parts there are at a time that have not ended. 0:
	// all.
	MaxParallel int `json:"max_parallel,omitempty"`

	// Tally is how the children ended, once the job has.
	Tally Tally `json:"tally,omitzero"`
}

// Share is what one child of a broadcast or a sharded job is for.
type Share struct {
	// Node has the part, under the incarnation that it had at the dispatch. Of a
	// shard they are its first place, and may be empty.
	Node        string `json:"node,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`
	// Parameter is what a shard is given.
	Parameter string `json:"parameter,omitempty"`
}

// Goal says when a broadcast succeeds.
type Goal string

// When a broadcast succeeds.
const (
	GoalAll    Goal = "all"    // every part has succeeded
	GoalQuorum Goal = "quorum" // every part has ended, and more than half have succeeded
	GoalAny    Goal = "any"    // a part has succeeded: the others are cancelled
	GoalCount  Goal = "count"  // Need parts have succeeded: the others are cancelled
)

// Tally is how the children of a job ended.
type Tally struct {
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Lost      int `json:"lost,omitempty"`
	Cancelled int `json:"cancelled,omitempty"`
	// Unstarted are those that the job ended without.
	Unstarted int `json:"unstarted,omitempty"`
	// Missed names some of the children that did not succeed.
	Missed []string `json:"missed,omitempty"`
}

// Parent says which job a child is a part or a shard of. A child has no input: it
// is its parent's, without which a child is of no use.
type Parent struct {
	ID string `json:"id"`
	// Created is when the parent was, which tells it from a later one under its
	// ID.
	Created time.Time `json:"created"`
	// Part names the child among its parent's: the node, or the shard's number.
	Part string `json:"part"`
	// Shard is set if the child is a shard.
	Shard *Shard `json:"shard,omitempty"`
}

// Shard is one of the numbered pieces of a sharded job.
type Shard struct {
	Index     int    `json:"index"` // from 0
	Total     int    `json:"total"`
	Parameter string `json:"parameter,omitempty"`
}

// ChildOf reports whether j is a child of parent, in that life of the parent's ID.
func (j Job) ChildOf(parent Job) bool { return j.Parent != nil && j.Parent.Is(parent) }

// RunsAgain reports whether j, a child of parent, is to run once more, since its
// parent was redriven after it had ended without success. A redrive of j alone counts
// if it came later.
func (j Job) RunsAgain(parent Job) bool {
	return j.State.Final() && j.State != Succeeded && j.Redriven.Before(parent.Redriven)
}

// Is reports whether j is the job that p speaks of.
func (p Parent) Is(j Job) bool { return j.ID == p.ID && j.Created.Equal(p.Created) }

type (
	// Dispatched is a broadcast or a sharded job whose due time has come, and
	// that has its shares now: a list, or a blob.
	Dispatched struct {
		At     time.Time
		Shares []Share
		Blob   *Blob
		Total  int
	}

	// Concluded is somebody having counted how the children of a job ended. It
	// succeeds unless Error is set.
	Concluded struct {
		At     time.Time
		Tally  Tally
		Result json.RawMessage
		Blob   *Blob // in place of Result
		Error  *Error
	}

	// Placed is the owner's ruling that a job is for another node, or for none yet
	// (""), or, without a pin, for any worker of its queue.
	Placed struct {
		At  time.Time
		Pin *Pin
	}

	// Deserted is the owner's ruling that the node of a job is gone, and that the
	// job goes nowhere else.
	Deserted struct{ At time.Time }
)

func (Dispatched) move(Job) Move { return Dispatch }

func (e Concluded) move(Job) Move {
	if e.Error != nil {
		return GiveUp
	}
	return Finish
}

func (Placed) move(Job) Move { return Place }

func (Deserted) move(Job) Move { return Desert }

func (e Dispatched) apply(j *Job) {
	fan := *j.Fan
	fan.Shares, fan.SharesBlob, fan.Total = slices.Clone(e.Shares), e.Blob, e.Total
	j.Fan, j.Started = &fan, e.At
}

func (e Concluded) apply(j *Job) {
	fan := *j.Fan
	fan.Tally = e.Tally
	j.Fan = &fan
	j.Result, j.ResultBlob, j.Error, j.Finished = e.Result, e.Blob, e.Error, e.At
}

// concerns reports whether j may go where e says: to another node as long as its
// rule stays, and to any worker only if that was wanted. What has no rule goes to
// no other node.
func (e Placed) concerns(j Job) bool {
	switch {
	case j.Pin == nil:
		return false
	case e.Pin == nil:
		return j.Pin.Else == ElseAny
	}
	return j.Pin.Rule != nil && j.Pin.Rule.same(e.Pin.Rule) && e.Pin.Else == j.Pin.Else
}

func (e Placed) apply(j *Job) { j.Pin = e.Pin }

func (e Deserted) apply(j *Job) { j.Error, j.Finished = gone(j.Pin.Node), e.At }
