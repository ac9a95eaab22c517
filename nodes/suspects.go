package nodes

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/feed"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
)

// How the judge comes to suspect a node: it hears the end of a beat, it reads a
// description without a beat or a beat that should not be there, or it is told.
// A suspicion costs a look and no more, so it may be wrong.

// suspect notes that a node may be gone and that its verdict has to reach need.
func (j *Judge) suspect(node string, need uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.suspects[node] = max(j.mu.suspects[node], need)
}

func (j *Judge) suspected() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.mu.suspects) > 0
}

// takeSuspects returns all suspects, and forgets them.
func (j *Judge) takeSuspects() map[string]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	suspects := j.mu.suspects
	j.mu.suspects = make(map[string]uint64)
	return suspects
}

// hear begins to listen to the feed of beats and to suspicions. The function
// that it returns ends that, and waits until it has ended.
func (j *Judge) hear() (stop func(), err error) {
	prefix := j.opts.Namespace.NodeFeed() + beatKey("")
	beats, err := feed.Hear(j.nc, prefix+"*", func(msg *nats.Msg) {
		if node, sequence, ok := parseMarker(msg, prefix); ok {
			j.hearOf(node, sequence)
		}
	})
	if err != nil {
		return nil, err
	}
	told, err := feed.Hear(j.nc, suspectSubject(j.opts.Namespace), func(msg *nats.Msg) {
		s, err := decode[suspicion](msg, suspectType, suspectVersion)
		if err != nil || name.Check("node", s.Node) != nil {
			j.opts.Logger.Debug("suspicion passed over", "err", err)
			return
		}
		j.hearOf(s.Node, s.Incarnation)
	})
	if err != nil {
		beats()
		return nil, err
	}
	return func() { beats(); told() }, nil
}

// hearOf suspects a node and wakes Run.
func (j *Judge) hearOf(node string, need uint64) {
	j.suspect(node, need)
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// parseMarker reads a message of the feed: the node whose beat has ended, and
// the sequence of the marker. It is not ok for a beat, or for anything else.
func parseMarker(msg *nats.Msg, prefix string) (node string, sequence uint64, ok bool) {
	if !kv.IsMarker(msg.Header) {
		return "", 0, false
	}
	node, ok = strings.CutPrefix(msg.Subject, prefix)
	sequence, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	return node, sequence, ok && err == nil && name.Check("node", node) == nil
}

// read suspects every node that has a description and no beat, and whose verdict
// does not cover the description: incarnations are smaller than that. It also
// suspects every node whose beat should not be there any more: it has stood
// still for long, or the verdict covers it. What it reads may be old, which
// judge finds out, and what it missed comes back, see [known].
func (j *Judge) read(ctx context.Context) error {
	infosErr := j.described.read(ctx)
	beats, beatsErr := j.beats.ListStale(ctx, beatKey("*"))
	verdictsErr := j.dead.read(ctx)
	if err := errors.Join(infosErr, beatsErr, verdictsErr); err != nil {
		return err
	}
	vigils := make(map[string]kv.Vigil, len(beats))
	for _, beat := range beats {
		node, incarnation := strings.TrimPrefix(beat.Key, beatKey("")), kv.EpochOf(beat)
		vigil := j.vigils[node]
		if vigil.Over(beat.Revision, j.opts.Lease) || incarnation <= j.dead.numbers[node] {
			j.suspect(node, incarnation)
		}
		vigils[node] = vigil
	}
	j.vigils = vigils
	for node, revision := range j.described.numbers {
		if _, there := vigils[node]; !there && j.dead.numbers[node] < revision {
			j.suspect(node, revision)
		}
	}
	return nil
}

// forget makes the next reading one of everything.
func (j *Judge) forget() {
	j.described.forget()
	j.dead.forget()
}

// stale reports whether a beat, as the leader has it, is there although its
// holder has ceased to believe in it, see [kv.Vigil]. The owner's lease has to
// be unbroken for all that time: if it was the server that was away, nodes are
// about to come back.
func (j *Judge) stale(node string, beat kv.Entry[kv.Held]) bool {
	vigil := j.vigils[node] // a copy, so that only read begins a vigil
	return vigil.Over(beat.Revision, j.opts.Lease) && j.opts.Owner.Unbroken() >= 2*j.opts.Lease
}

// deadUpTo returns the verdicts by node.
func deadUpTo(verdicts []kv.Entry[uint64]) map[string]uint64 {
	dead := make(map[string]uint64, len(verdicts))
	for _, v := range verdicts {
		dead[strings.TrimPrefix(v.Key, deadKey(""))] = v.Value
	}
	return dead
}
