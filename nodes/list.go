package nodes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// State is how a node stands, for people. Nothing is decided by it.
type State string

// The states of a node.
const (
	Alive    State = "alive"    // it has a beat
	Draining State = "draining" // it has a beat and takes nothing new
	Offline  State = "offline"  // it has no beat above its verdict; it is forgotten after a day
)

// Member is a node as others see it.
type Member struct {
	ID          string `json:"id"`
	Incarnation uint64 `json:"incarnation"` // 0 if it is offline
	State       State  `json:"state"`
	Owner       bool   `json:"owner"` // it holds the owner's lease
	Info
}

// Living returns the incarnation of every node that has a beat above its verdict. It
// may be some milliseconds behind, and a node that is not among them may live: see
// [Asker.Ask].
func Living(ctx context.Context, pub *publish.Publisher, ns streams.Namespace) (map[string]uint64, error) {
	beats, beatsErr := openBeats(pub, ns).ListStale(ctx, beatKey("*"))
	verdicts, verdictsErr := openVerdicts(pub, ns).ListStale(ctx, deadKey("*"))
	if err := errors.Join(beatsErr, verdictsErr); err != nil {
		return nil, fmt.Errorf("nodes: list those that are alive: %w", err)
	}
	return above(beats, deadUpTo(verdicts)), nil
}

// above returns the incarnations of the beats that no verdict covers, by node. One
// that is covered came back from the dead, see the package comment.
func above(beats []kv.Entry[kv.Held], dead map[string]uint64) map[string]uint64 {
	alive := make(map[string]uint64, len(beats))
	for _, beat := range beats {
		node, incarnation := strings.TrimPrefix(beat.Key, beatKey("")), kv.EpochOf(beat)
		if incarnation > dead[node] {
			alive[node] = incarnation
		}
	}
	return alive
}

// List returns all nodes that are there or were within the last day, by ID. It
// may be some milliseconds behind.
func List(ctx context.Context, pub *publish.Publisher, ns streams.Namespace) ([]Member, error) {
	beats, beatsErr := openBeats(pub, ns).ListStale(ctx, beatKey("*"))
	infos, infosErr := openInfos(pub, ns).ListStale(ctx, infoKey("*"))
	verdicts, verdictsErr := openVerdicts(pub, ns).ListStale(ctx, deadKey("*"))
	owner, ownerErr := openLeases(pub, ns).Get(ctx, OwnerKey)
	if errors.Is(ownerErr, kv.ErrNotFound) {
		ownerErr = nil
	}
	if err := errors.Join(beatsErr, infosErr, verdictsErr, ownerErr); err != nil {
		return nil, fmt.Errorf("nodes: list: %w", err)
	}
	members := make(map[string]Member, len(infos))
	for _, info := range infos {
		id := strings.TrimPrefix(info.Key, infoKey(""))
		members[id] = Member{ID: id, State: Offline, Info: info.Value}
	}
	for id, incarnation := range above(beats, deadUpTo(verdicts)) {
		m := members[id]
		m.ID, m.Incarnation, m.State = id, incarnation, Alive
		if m.Info.Draining {
			m.State = Draining
		}
		members[id] = m
	}
	list := make([]Member, 0, len(members))
	for _, m := range members {
		m.Owner = m.ID == ownerNode(owner.Value)
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}
