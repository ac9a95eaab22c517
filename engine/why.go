package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Reason is why a job is where it is, as [Engine.Why] sees it. Its JSON is
// stable, the wording of the text aside.
type Reason struct {
	ID    string     `json:"id"`
	Kind  string     `json:"kind"`
	Queue string     `json:"queue"`
	State string     `json:"state"`
	Code  string     `json:"code"`   // one of the Why constants
	Text  string     `json:"reason"` // one sentence, for people
	Node  *string    `json:"node"`   // that runs the job, or should
	Due   *time.Time `json:"due_at"` // of a job that is scheduled or retrying
}

// The codes of a [Reason].
const (
	WhyEnded    = "ended"     // nothing will happen any more
	WhyRemoving = "removing"  // it has ended, and its record is about to go
	WhyRunning  = "running"   // its node runs it
	WhyEnding   = "ending"    // its attempt was told to end and has not yet
	WhyOffline  = "offline"   // the node that ran it is gone
	WhyDelay    = "delay"     // it was submitted for later
	WhyRetry    = "retry"     // it failed, and is tried again later
	WhySnooze   = "snooze"    // its handler asked to be tried later
	WhyNoKind   = "no_kind"   // the workers of its queue have no handler for it
	WhyNoWorker = "no_worker" // no worker takes from its queue
	WhyNoOwner  = "no_owner"  // it needs the owner, and there is none
	WhyOwner    = "owner"     // it needs the owner, which will see to it
	WhyBusy     = "busy"      // no worker of its queue has a free slot
	WhySoon     = "soon"      // it is about to be taken
	WhyNotKnown = "not_known" // its state is one of a later version
)

const (
	whyTries    = 3               // how often Why looks, if the job moves meanwhile
	whyPatience = 2 * time.Second // for how long Get wants to know why
	whyMoment   = time.Second     // for which a pending job needs no reason
	mostNamed   = 3               // how many nodes a text names
)

// Why says why a job is where it is: what runs it, or what it waits for. It
// writes nothing and costs a few requests. It returns [ErrNotFound] for a job
// that is not there.
func (e *Engine) Why(ctx context.Context, id string) (Reason, error) {
	if err := checkID(id); err != nil {
		return Reason{}, err
	}
	for try := 1; ; try++ {
		entry, err := e.store.Get(ctx, id)
		if err != nil {
			return Reason{}, fmt.Errorf("engine: explain job: %w", err)
		}
		v, err := e.look(ctx, entry)
		if err != nil {
			return Reason{}, fmt.Errorf("engine: explain job: %w", err)
		}
		reason := v.reason()
		if try == whyTries || !v.ready() && reason.Code != WhyOffline {
			return reason, nil
		}
		// What was seen after the record means something else if the job has moved.
		now, err := e.store.Get(ctx, id)
		if err == nil && now.Revision == entry.Revision {
			return reason, nil
		}
	}
}

// waits returns what a job waits for, if it has been pending for more than a
// moment. It returns nothing to those who may not ask, but soon.
func (e *Engine) waits(ctx context.Context, entry store.Entry) string {
	j := entry.Value
	if j.State != machine.Pending || e.clock.Now().Sub(pendingSince(j)) < whyMoment {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, whyPatience)
	defer cancel()
	why, err := e.Why(ctx, entry.Key)
	switch {
	case err != nil:
		e.log.DebugContext(ctx, "why a job waits is not known", "job", entry.Key, "err", err)
		return ""
	case why.State != string(machine.Pending):
		return "" // it does not wait any more
	}
	return why.Text
}

func pendingSince(j machine.Job) time.Time {
	since := j.Created
	if j.Due.After(since) {
		since = j.Due
	}
	if n := len(j.Attempts); n > 0 && j.Attempts[n-1].Ended.After(since) {
		since = j.Attempts[n-1].Ended
	}
	return since
}

// view is what can be seen of a job and of those who could do something for it.
type view struct {
	id    string
	queue string
	job   machine.Job
	now   time.Time // by the server's clock
	lease time.Duration

	nodes   []nodes.Member // nil if the job has ended
	offered bool           // there is an item; known for ready jobs only
	load    streams.Load   // of the queue; known for ready jobs only
}

// look looks at what a job depends on, as far as its state asks for that.
func (e *Engine) look(ctx context.Context, entry store.Entry) (view, error) {
	queue, local, _ := name.SplitJobID(entry.Key) // a key that is no ID has no queue
	v := view{id: entry.Key, queue: queue, job: entry.Value, lease: e.settings.Lease}
	if v.job.State.Final() {
		return v, nil
	}
	if err := e.clock.Fresh(ctx); err != nil {
		return v, err
	}
	v.now = e.clock.Now()
	var err error
	if v.nodes, err = nodes.List(ctx, e.pub, e.ns); err != nil || !v.ready() {
		return v, err
	}
	if v.offered, err = e.work.Offered(ctx, queue, local); err != nil {
		return v, err
	}
	v.load, err = e.work.Load(ctx, queue)
	if errors.Is(err, streams.ErrNoConsumer) {
		err = nil // no worker has ever been there, or the next pull makes one
	}
	return v, err
}

// ready reports whether the job waits for a worker, or for the owner to offer it
// to one.
func (v view) ready() bool {
	return v.job.State == machine.Pending || v.job.State.Delayed() && !v.now.Before(v.job.Due)
}

// reason returns the first thing that keeps the job where it is.
func (v view) reason() Reason {
	j := v.job
	r := Reason{ID: v.id, Kind: j.Kind, Queue: v.queue, State: string(j.State)}
	switch {
	case j.State.Final():
		r.Code, r.Text = v.ended()
	case j.State == machine.Running:
		r.Node = &j.Lease.Node
		r.Code, r.Text = v.running()
	case j.State.Delayed():
		r.Due = moment(j.Due)
		r.Code, r.Text = v.delayed()
	case j.State == machine.Pending:
		r.Code, r.Text = v.waiting()
	default:
		r.Code, r.Text = WhyNotKnown, fmt.Sprintf("state %s is one of a later version: use that to ask", j.State)
	}
	return r
}

func (v view) ended() (code, text string) {
	j := v.job
	if j.State == machine.Removing {
		return WhyRemoving, "it has ended, and its record is being removed"
	}
	how := map[machine.State]string{machine.Succeeded: "it succeeded", machine.Failed: "it failed", machine.Cancelled: "it was cancelled"}
	text = how[j.State] + " at " + instant(j.Finished)
	if j.Error != nil {
		text += ": " + j.Error.Message
	}
	return WhyEnded, text
}

func (v view) running() (code, text string) {
	node := v.job.Lease.Node
	if m, runs := v.runner(); !runs {
		return WhyOffline, v.offline(m)
	}
	if c := v.job.Cancel; c != nil {
		return WhyEnding, fmt.Sprintf("it was told to end at %s (%s), and its attempt on node %s has not ended yet", instant(c.At), c.Cause, node)
	}
	return WhyRunning, fmt.Sprintf("it runs on node %s since %s", node, instant(v.job.Started))
}

// runner returns the node that runs the job, and whether it is there, as the
// incarnation that claimed the job.
func (v view) runner() (nodes.Member, bool) {
	lease := v.job.Lease
	for _, m := range v.nodes {
		if m.ID == lease.Node {
			return m, m.State != nodes.Offline && m.Incarnation == lease.Incarnation
		}
	}
	return nodes.Member{ID: lease.Node, State: nodes.Offline}, false
}

// offline explains a job whose node is gone.
func (v view) offline(m nodes.Member) string {
	text := fmt.Sprintf("node %s, which ran it, is offline", m.ID)
	if m.State != nodes.Offline {
		text = fmt.Sprintf("node %s, which ran it, has started anew since", m.ID)
	}
	next := "it is taken over"
	if v.job.Cancel != nil {
		text, next = text+", and it was told to end", "it does so"
	}
	if _, why := v.nobody(); why != "" {
		return text + ", but " + why
	}
	within := 2 * v.lease
	if m.Owner {
		within += v.lease
	}
	return fmt.Sprintf("%s: %s within %v of that, if %s has a free slot", text, next, within, some(v.able(), nodeID))
}

// delayed explains a job that is scheduled or retrying.
func (v view) delayed() (code, text string) {
	if v.ready() {
		return v.waiting()
	}
	j, due := v.job, instant(v.job.Due)
	switch {
	case j.State == machine.Retrying && j.Error != nil:
		return WhyRetry, fmt.Sprintf("it is tried again at %s, after failure %d of %d: %s", due, j.Failures, j.Limit(), j.Error.Message)
	case j.State == machine.Retrying:
		return WhyRetry, fmt.Sprintf("it is tried again at %s, after failure %d of %d", due, j.Failures, j.Limit())
	case j.Wait == machine.WaitSnooze:
		return WhySnooze, "its handler asked to be tried again at " + due
	case j.Wait == machine.WaitKind:
		if _, why := v.nobody(); why != "" {
			return WhyNoKind, fmt.Sprintf("%s; it is offered again at %s", why, due)
		}
		return WhyNoKind, fmt.Sprintf("it reached a worker without a handler for kind %s; it is offered again at %s", j.Kind, due)
	}
	return WhyDelay, "it was submitted for " + due
}

// waiting explains a job that a worker could have now.
func (v view) waiting() (code, text string) {
	if !v.offered && v.now.Sub(pendingSince(v.job)) >= whyMoment {
		return v.unoffered()
	}
	if code, text = v.nobody(); code != "" {
		return code, text
	}
	if busy := v.busy(); busy != "" {
		return WhyBusy, busy
	}
	return WhySoon, "it is about to be taken by " + some(v.able(), nodeID)
}

// busy says that all slots are taken, or nothing if one is free or may be.
func (v view) busy() string {
	if v.load == (streams.Load{}) || v.load.Asking > 0 || v.now.Sub(pendingSince(v.job)) < whyMoment {
		return ""
	}
	able, slots := v.able(), 0
	for _, m := range able {
		slots += m.Slots
	}
	taken, waiting := v.load.Taken, v.load.Waiting
	if waiting == 0 && taken > 0 {
		taken, waiting = taken-1, 1 // it was handed back: the server counts it as taken
	}
	return fmt.Sprintf("%s no free slot (of %d): queue %s has %d taken and %d waiting, this one among them",
		verb(able, nodeID, "has", "have"), slots, v.queue, taken, waiting)
}

// unoffered explains a job that is ready and was not offered to workers.
func (v view) unoffered() (code, text string) {
	what := "it has lost its item of the work queue"
	if v.job.State.Delayed() {
		what = "it was due at " + instant(v.job.Due)
	}
	for _, m := range v.nodes {
		if m.Owner && m.State != nodes.Offline {
			return WhyOwner, fmt.Sprintf("%s: node %s, the owner, is about to offer it to workers", what, m.ID)
		}
	}
	return WhyNoOwner, what + ", and there is no owner to offer it to workers: start millrace serve, or a worker without --no-owner"
}

// nobody says why no node can take the job, or nothing if one can.
func (v view) nobody() (code, text string) {
	if len(v.able()) > 0 {
		return "", ""
	}
	taking := v.those(func(m nodes.Member) bool { return m.State == nodes.Alive && v.takes(m) })
	if len(taking) > 0 {
		return WhyNoKind, fmt.Sprintf("%s from queue %s without a handler for kind %s: start a worker that has one",
			verb(taking, kindsOf, "takes", "take"), v.queue, v.job.Kind)
	}
	text = "no node takes from queue " + v.queue
	if gone := v.those(v.takes); len(gone) > 0 {
		text += ", " + verb(gone, stateOf, "did", "did")
	}
	if elsewhere := v.those(func(m nodes.Member) bool { return m.State == nodes.Alive && v.handles(m) }); len(elsewhere) > 0 {
		return WhyNoWorker, fmt.Sprintf("%s, and %s kind %s for other queues", text, verb(elsewhere, nodeID, "has", "have"), v.job.Kind)
	}
	return WhyNoWorker, fmt.Sprintf("%s: start a worker with kind %s", text, v.job.Kind)
}

// able returns the nodes that can take the job.
func (v view) able() []nodes.Member {
	return v.those(func(m nodes.Member) bool { return m.State == nodes.Alive && v.takes(m) && v.handles(m) })
}

func (v view) takes(m nodes.Member) bool   { return slices.Contains(m.Queues, v.queue) }
func (v view) handles(m nodes.Member) bool { return slices.Contains(m.Kinds, v.job.Kind) }

func (v view) those(are func(nodes.Member) bool) (list []nodes.Member) {
	for _, m := range v.nodes {
		if are(m) {
			list = append(list, m)
		}
	}
	return list
}

func nodeID(m nodes.Member) string  { return m.ID }
func stateOf(m nodes.Member) string { return fmt.Sprintf("%s (%s)", m.ID, m.State) }
func kindsOf(m nodes.Member) string { return fmt.Sprintf("%s (%s)", m.ID, strings.Join(m.Kinds, ", ")) }

// verb returns nodes and what they do.
func verb(list []nodes.Member, as func(nodes.Member) string, one, many string) string {
	if len(list) == 1 {
		return some(list, as) + " " + one
	}
	return some(list, as) + " " + many
}

// some names the first few of some nodes.
func some(list []nodes.Member, as func(nodes.Member) string) string {
	var names []string
	for _, m := range list[:min(len(list), mostNamed)] {
		names = append(names, as(m))
	}
	text := strings.Join(names, ", ")
	if more := len(list) - len(names); more > 0 {
		text = fmt.Sprintf("%s and %d more", text, more)
	}
	if len(list) == 1 {
		return "node " + text
	}
	return "nodes " + text
}

// instant returns a time for a sentence.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
