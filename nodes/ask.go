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

// verdict reads whether the claim's incarnation is dead.
func (a *Asker) verdict(ctx context.Context, c Claim) (Answer, error) {
	dead, err := a.verdicts.Get(ctx, deadKey(c.Node))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return Silent, fmt.Errorf("nodes: read the verdict on %s: %w", c.Node, err)
	}
	if err == nil && dead.Value >= c.Incarnation {
		return Dead, nil
	}
	// The owner finds most by itself, but not those whose description and
	// verdict have expired while nobody wanted their jobs.
	msg, err := message(suspectSubject(a.ns), suspectType, suspectVersion, suspicion{c.Node, c.Incarnation})
	if err == nil {
		err = a.nc.PublishMsg(msg)
	}
	if err != nil {
		return Silent, fmt.Errorf("nodes: tell the owner about %s: %w", c.Node, err)
	}
	return Silent, nil
}
