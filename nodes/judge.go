package nodes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// JudgeOptions configures a [Judge]. The zero value of a field means its default.
type JudgeOptions struct {
	// Namespace is whose nodes are judged. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// Lease is the lease of the namespace, see [streams.Settings]. It is
	// required.
	Lease time.Duration

	// Owner is the lease under which the judge works, as timers.Stand gives
	// it. It is required.
	Owner *kv.Lease

	// Verdict is called after a verdict was written. It must not block. Default:
	// nobody is told.
	Verdict func()

	// Logger hears of every verdict. Default slog.Default.
	Logger *slog.Logger
}

// Judge finds out which nodes are gone and writes the verdict on them. Only the
// owner runs one; two at once do no harm, since a verdict only grows and each is
// true.
type Judge struct {
	opts     JudgeOptions
	nc       *nats.Conn
	pub      *publish.Publisher
	beats    *kv.Bucket[kv.Held]
	verdicts *kv.Bucket[uint64]
	wake     chan struct{} // has one element if there is a new suspect

	// described and dead are what readings have found: the revision of each
	// node's description, and its verdict. Only readings use them.
	described known[Info]
	dead      known[uint64]

	// vigils are kept over the beats, by node. Run writes them between two
	// rounds, and only rounds read them.
	vigils map[string]kv.Vigil

	mu struct {
		sync.Mutex
		// suspects are the nodes that may be gone, with the sequence of the
		// nodes stream that their verdict has to reach.
		suspects map[string]uint64
	}
}

// NewJudge returns a judge that does nothing before [Judge.Run].
func NewJudge(pub *publish.Publisher, opts JudgeOptions) *Judge {
	if opts.Namespace == "" {
		opts.Namespace = streams.DefaultNamespace
	}
	if opts.Verdict == nil {
		opts.Verdict = func() {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	j := &Judge{
		opts:     opts,
		nc:       pub.Conn(),
		pub:      pub,
		beats:    openBeats(pub, opts.Namespace),
		verdicts: openVerdicts(pub, opts.Namespace),
		wake:     make(chan struct{}, 1),
	}
	j.described = known[Info]{
		bucket: openInfos(pub, opts.Namespace),
		prefix: infoKey(""),
		number: func(info kv.Entry[Info]) uint64 { return info.Revision },
	}
	j.dead = known[uint64]{
		bucket: j.verdicts,
		prefix: deadKey(""),
		number: func(verdict kv.Entry[uint64]) uint64 { return verdict.Value },
	}
	j.mu.suspects = make(map[string]uint64)
	return j
}

// maxAtOnce bounds how many nodes are judged at the same time. A whole rack may
// be gone, and each of its nodes may take a second to not answer.
const maxAtOnce = 256

// Run judges until ctx or the owner's lease ends, and then returns nil. It
// suspects nodes by what it hears at once, and by what it reads every third of
// the lease, and at every reconnect. A reading is of the beats and of what else
// has changed, so it does not grow with the nodes that went within the last day;
// the first one, and that at a reconnect, is of everything. Errors of NATS do not
// end it.
func (j *Judge) Run(ctx context.Context) error {
	stop, err := j.hear()
	if err != nil {
		return fmt.Errorf("nodes: judge: %w", err)
	}
	defer stop()
	connected := j.nc.StatusChanged(nats.CONNECTED)
	defer j.nc.RemoveStatusListener(connected)
	every := time.NewTicker(j.opts.Lease / 3)
	defer every.Stop()
	soon := time.NewTimer(0) // the first reading
	defer soon.Stop()
	j.forget()
	for read := true; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-j.opts.Owner.Context().Done():
			return nil
		case <-connected:
			j.forget()
			read = true
		case <-every.C:
			read = true
		case <-j.wake:
		case <-soon.C:
		}
		if read {
			read = false
			if err := j.read(ctx); err != nil && ctx.Err() == nil {
				j.opts.Logger.WarnContext(ctx, "nodes not read", "err", err)
			}
		}
		if wait, open := j.round(ctx); open {
			soon.Reset(wait)
		}
	}
}

// lookAgain is when the judge returns to a suspect that it could not judge: one
// that answers although its key is gone registers in this moment.
const lookAgain = time.Second

// round judges all suspects. It reports whether some are left, and when to look
// at them again.
func (j *Judge) round(ctx context.Context) (wait time.Duration, open bool) {
	if !j.suspected() {
		return 0, false
	}
	if wait := j.opts.Lease - j.opts.Owner.Unbroken(); wait > 0 {
		return wait, true // those who lost their keys in an outage come back in this time
	}
	last, err := j.lastSequence(ctx)
	if err != nil {
		if ctx.Err() == nil {
			j.opts.Logger.WarnContext(ctx, "nodes not judged", "err", err)
		}
		return lookAgain, true
	}
	var group errgroup.Group
	group.SetLimit(maxAtOnce)
	for node, need := range j.takeSuspects() {
		group.Go(func() error {
			settled, err := j.judge(ctx, node, need, last)
			if err != nil && ctx.Err() == nil {
				j.opts.Logger.WarnContext(ctx, "node not judged", "node", node, "err", err)
			}
			if !settled {
				j.suspect(node, need)
			}
			return nil
		})
	}
	_ = group.Wait() // it returns no error
	return lookAgain, j.suspected()
}

// judge writes the verdict on a node if it is gone, and reports whether that
// needs no second look. The verdict is last, the end of the nodes stream before
// the key was found missing: every registration up to there is over, and every
// later one is greater.
//
// A beat that is stale, or that a verdict covers, is removed if its node is gone,
// and the second look judges. Only the revision that was read is removed, so a
// renewal that comes in between wins.
func (j *Judge) judge(ctx context.Context, node string, need, last uint64) (settled bool, err error) {
	dead, err := j.verdicts.Get(ctx, deadKey(node))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return false, err
	}
	beat, err := j.beats.Get(ctx, beatKey(node))
	missing := errors.Is(err, kv.ErrNotFound)
	switch {
	case err != nil && !missing:
		return false, err
	case missing && (dead.Value >= need || dead.Value >= last):
		return true, nil
	case !missing && kv.EpochOf(beat) > dead.Value && !j.stale(node, beat):
		return true, nil
	}
	_, err = call(ctx, j.nc, j.opts.Namespace.CtlSubject(node), request{Do: doAlive}, patience)
	if !errors.Is(err, errSilent) {
		return false, err
	}
	if j.opts.Owner.Unbroken() < j.opts.Lease {
		return false, nil // which it also is when the lease is not valid now
	}
	if !missing {
		j.opts.Logger.WarnContext(ctx, "removing stale beat", "node", node, "incarnation", kv.EpochOf(beat))
		return false, j.beats.Remove(ctx, beatKey(node), beat.Revision)
	}
	if dead.Revision == 0 {
		_, err = j.verdicts.Create(ctx, deadKey(node), last, kv.WriteOptions{TTL: keepFor})
	} else {
		_, err = j.verdicts.Update(ctx, deadKey(node), last, dead.Revision, kv.WriteOptions{TTL: keepFor})
	}
	if err != nil {
		return false, err // maybe it is stored: the second look reads it
	}
	j.opts.Logger.InfoContext(ctx, "node is gone", "node", node, "verdict", last)
	j.opts.Verdict()
	return true, nil
}

// lastSequence asks the leader of the nodes stream for its end.
func (j *Judge) lastSequence(ctx context.Context) (uint64, error) {
	var info struct {
		publish.Refusal
		State jetstream.StreamState `json:"state"`
	}
	if err := j.pub.Ask(ctx, "STREAM.INFO."+j.beats.Stream(), nil, &info); err != nil {
		return 0, fmt.Errorf("nodes: read the end of the stream: %w", err)
	}
	return info.State.LastSeq, nil
}
