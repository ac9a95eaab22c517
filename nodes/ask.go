package nodes

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Answer is what asking about a claim brings.
type Answer int

const (
	// Silent means that nobody answers and that there is no verdict yet. Ask
	// again later.
	Silent Answer = iota
	// Yes means that the process that claimed runs the job, or has its outcome.
	Yes
	// No means that the node is there under a later incarnation and does not
	// run the job: the one that claimed is gone.
	No
	// NoSame means that the very incarnation that claimed does not run the job:
	// the answer to its claim was lost, so this is not a failure.
	NoSame
	// Dead means that nobody answers and that the owner's verdict covers the
	// incarnation.
	Dead
)

// String returns the name of a.
func (a Answer) String() string {
	if a < Silent || a > Dead {
		return fmt.Sprintf("answer %d", int(a))
	}
	return [...]string{"silent", "yes", "no", "no same", "dead"}[a]
}

// Claim is what a record says about who runs its job.
type Claim struct {
	Node        string
	Incarnation uint64
	Job, Token  string
}

// Asker asks nodes about their jobs. It is safe for concurrent use.
type Asker struct {
	nc       *nats.Conn
	ns       streams.Namespace
	beats    *kv.Bucket[kv.Held]
	infos    *kv.Bucket[Info]
	verdicts *kv.Bucket[uint64]
}

// NewAsker returns an asker for the nodes of a namespace.
func NewAsker(pub *publish.Publisher, ns streams.Namespace) *Asker {
	return &Asker{
		nc: pub.Conn(), ns: ns,
		beats: openBeats(pub, ns), infos: openInfos(pub, ns), verdicts: openVerdicts(pub, ns),
	}
}

// Ask asks the node of a claim whether it runs the job. If nobody answers, which
// takes up to two seconds where a process is frozen, it reads the verdict from
// the leader, and tells the owner if there is none. An error means that nothing
// is known.
func (a *Asker) Ask(ctx context.Context, c Claim) (Answer, error) {
	if err := name.Check("node", c.Node); err != nil {
		return Silent, fmt.Errorf("nodes: ask about %s: %w", c.Job, err)
	}
	req := request{Do: doRuns, Job: c.Job, Token: c.Token}
	r, err := call(ctx, a.nc, a.ns.CtlSubject(c.Node), req, patience)
	if errors.Is(err, errLate) { // one request may be lost with a connection
		r, err = call(ctx, a.nc, a.ns.CtlSubject(c.Node), req, patience)
	}
	switch {
	case errors.Is(err, errSilent):
	case err != nil:
		return Silent, fmt.Errorf("nodes: ask %s about %s: %w", c.Node, c.Job, err)
	case r.Runs:
		return Yes, nil
	case r.Incarnation > c.Incarnation:
		return No, nil
	case r.Incarnation == c.Incarnation && r.Incarnation != 0:
		return NoSame, nil
	}
	// Nobody answered; or a process did that has lost its lease, which cannot
	// speak for one that may have the ID now.
	return a.verdict(ctx, c)
}

// End tells the node of a claim to end its attempt. An error means that it may
// not have heard.
func (a *Asker) End(ctx context.Context, c Claim, cause string) error {
	if err := name.Check("node", c.Node); err != nil {
		return fmt.Errorf("nodes: end %s: %w", c.Job, err)
	}
	_, err := call(ctx, a.nc, a.ns.CtlSubject(c.Node), request{Do: doEnd, Job: c.Job, Token: c.Token, Cause: cause}, patience)
	if err != nil {
		return fmt.Errorf("nodes: tell %s to end %s: %w", c.Node, c.Job, err)
	}
	return nil
}

// Look tells a node to look into its mailbox. An error means that it may not have
// heard.
func (a *Asker) Look(ctx context.Context, node string) error {
	err := name.Check("node", node)
	if err == nil {
		_, err = call(ctx, a.nc, a.ns.CtlSubject(node), request{Do: doLook}, patience)
	}
	if err != nil {
		return fmt.Errorf("nodes: tell %s to look into its mailbox: %w", node, err)
	}
	return nil
}

// Verdict returns the last incarnation of a node that is known to be dead, or 0.
// The leader answers.
func (a *Asker) Verdict(ctx context.Context, node string) (uint64, error) {
	dead, err := a.verdicts.Get(ctx, deadKey(node))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("nodes: read the verdict on %s: %w", node, err)
	}
	return dead.Value, nil
}

// Incarnation returns the incarnation under which a node is registered, or 0 if it
// is not: it has no beat, or one that the verdict covers. The leader answers.
func (a *Asker) Incarnation(ctx context.Context, node string) (uint64, error) {
	beat, err := a.beats.Get(ctx, beatKey(node))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("nodes: look for the beat of %s: %w", node, err)
	}
	dead, err := a.Verdict(ctx, node) // after the beat: what it covers then is dead
	if err != nil || kv.EpochOf(beat) <= dead {
		return 0, err
	}
	return kv.EpochOf(beat), nil
}

// verdict reads whether the claim's incarnation is dead.
func (a *Asker) verdict(ctx context.Context, c Claim) (Answer, error) {
	dead, err := a.Verdict(ctx, c.Node)
	if err != nil {
		return Silent, err
	}
	if dead > 0 && dead >= c.Incarnation {
		return Dead, nil
	}
	return Silent, a.Suspect(c.Node, c.Incarnation)
}

// Suspect tells the owner that a node may be gone in an incarnation for which there is
// no verdict. It finds most by itself, but not those whose description and verdict
// have expired while nobody wanted their jobs. It may not hear, and a suspicion may be
// wrong: whoever still wonders later says it again.
func (a *Asker) Suspect(node string, incarnation uint64) error {
	msg, err := message(suspectSubject(a.ns), suspectType, suspectVersion, suspicion{node, incarnation})
	if err == nil {
		err = a.nc.PublishMsg(msg)
	}
	if err != nil {
		return fmt.Errorf("nodes: tell the owner about %s: %w", node, err)
	}
	return nil
}
