package nodes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// ErrTaken is returned when the ID of a node belongs to another process that
// lives.
var ErrTaken = errors.New("the ID belongs to another process")

// Options configures a [Node]. The zero value of a field means its default.
type Options struct {
	// Namespace is where the node joins. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// ID is the stable ID of the node. Default: the name of the host, with
	// its dots replaced, and four random characters.
	ID string

	// Lease is the lease of the namespace, see [streams.Settings]. It is
	// required.
	Lease time.Duration

	// Info describes the node.
	Info Info

	// Runs reports whether this process runs a job under a token: from before
	// a claim is sent until its outcome is stored or the claim is refused. It
	// must not block. Default: it runs nothing.
	Runs func(job, token string) bool

	// End ends the context of the attempt that runs a job under a token, if
	// this process has it. It must not block. Default: it has none.
	End func(job, token, cause string)

	// Lost is called when the lease was lost, before the node registers again.
	// It must not block. Default: nobody is told.
	Lost func()

	// Settle waits, after [Node.Drained] has begun to say that this process is
	// to take nothing, until all has started or was given back that it had
	// taken. Default: it never takes anything.
	Settle func(context.Context) error

	// Look is called when somebody asks this node to look into its mailbox. It must
	// not block. Default: it has none.
	Look func()

	// Load returns how many jobs this process runs. It must not block. Default:
	// it runs nothing.
	Load func() int

	// Logger hears of registrations and losses. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Runs == nil {
		o.Runs = func(string, string) bool { return false }
	}
	if o.End == nil {
		o.End = func(string, string, string) {}
	}
	if o.Lost == nil {
		o.Lost = func() {}
	}
	if o.Settle == nil {
		o.Settle = func(context.Context) error { return nil }
	}
	if o.Look == nil {
		o.Look = func() {}
	}
	if o.Load == nil {
		o.Load = func() int { return 0 }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Info = o.Info.clone()
	if o.Info.Host == "" {
		o.Info.Host, _ = os.Hostname() // without a name it stays empty
	}
	if o.Info.PID == 0 {
		o.Info.PID = os.Getpid()
	}
	if o.Info.Started.IsZero() {
		o.Info.Started = time.Now().UTC()
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if err := name.Check("namespace", string(o.Namespace)); err != nil {
		errs = append(errs, err)
	}
	if o.ID != "" {
		if err := name.Check("node", o.ID); err != nil {
			errs = append(errs, err)
		}
	}
	if o.Lease < 2*time.Second {
		errs = append(errs, fmt.Errorf("lease is %v: use that of the namespace's settings", o.Lease))
	}
	return errors.Join(errs...)
}

// Node is this process as a node. It is safe for concurrent use.
type Node struct {
	id     string
	holder string // tells the keys of this process from those of all others
	opts   Options
	nc     *nats.Conn
	beats  *kv.Bucket[kv.Held]
	infos  *kv.Bucket[Info]
	ctl    *nats.Subscription
	quiet  chan struct{} // closed when ctl calls nobody any more
	stale  chan struct{} // has one element if the description shall be written
	vigil  kv.Vigil      // over what another process has under this ID

	heeding sync.WaitGroup // requests whose answers take time
	deafen  func()         // ends those answers

	writing *semaphore.Weighted // held while the description is written

	mu struct {
		sync.Mutex
		lease  *kv.Lease     // the last that was taken; it may be lost
		next   chan struct{} // closed when another lease takes its place
		info   Info          // Draining is what the process says, Drained what it was asked
		turned chan struct{} // closed when Drained changes
		turns  int           // how often it has changed
	}
}

// Join registers this process as a node and begins to answer what others ask
// it. It waits while NATS is away. Under an ID that was given and whose key
// exists, it waits until that key expires, and returns [ErrTaken] as soon as it
// sees it renewed; a key that does neither for two leases is taken over, see
// [kv.Vigil]. The caller runs [Node.Run] at once: nobody else renews.
func Join(ctx context.Context, pub *publish.Publisher, opts Options) (*Node, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("nodes: join: %w", err)
	}
	n := &Node{
		id:      opts.ID,
		opts:    opts,
		nc:      pub.Conn(),
		beats:   openBeats(pub, opts.Namespace),
		infos:   openInfos(pub, opts.Namespace),
		quiet:   make(chan struct{}),
		stale:   make(chan struct{}, 1),
		writing: semaphore.NewWeighted(1),
	}
	n.holder = fmt.Sprintf("%s/%d/%s", opts.Info.Host, opts.Info.PID, rand.Text())
	n.mu.next, n.mu.turned = make(chan struct{}), make(chan struct{})
	n.mu.info = opts.Info
	if err := n.enter(ctx); err != nil {
		return nil, fmt.Errorf("nodes: join as %s: %w", n.id, err)
	}
	if err := n.listen(ctx); err != nil {
		n.release(ctx)
		return nil, fmt.Errorf("nodes: join as %s: %w", n.id, err)
	}
	return n, nil
}

// ID returns the ID of the node.
func (n *Node) ID() string { return n.id }

// Incarnation returns the present incarnation, or the last one if the node is
// about to register again.
func (n *Node) Incarnation() uint64 { return n.current().Epoch() }

// Lease returns the present incarnation and a context that ends with it; the
// cause is then [kv.ErrLeaseLost]. If the node is about to register again, the
// context has ended already.
func (n *Node) Lease() (context.Context, uint64) {
	lease := n.current()
	return lease.Context(), lease.Epoch()
}

// Registered is [Node.Lease], but waits until the node is registered. It
// returns an error only if ctx ends before.
func (n *Node) Registered(ctx context.Context) (context.Context, uint64, error) {
	lease, err := n.registered(ctx)
	if err != nil {
		return nil, 0, err
	}
	return lease.Context(), lease.Epoch(), nil
}

// registered waits for a lease that is valid.
func (n *Node) registered(ctx context.Context) (*kv.Lease, error) {
	for {
		n.mu.Lock()
		lease, next := n.mu.lease, n.mu.next
		n.mu.Unlock()
		if lease.Valid() {
			return lease, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Ready reports whether the node is registered and its lease is valid now.
func (n *Node) Ready() bool { return n.current().Valid() }

// Info returns the description of the node.
func (n *Node) Info() Info {
	n.mu.Lock()
	defer n.mu.Unlock()
	info := n.mu.info.clone()
	info.Draining = info.Draining || info.Drained
	return info
}

// SetInfo changes the description of the node and stores it. If storing fails
// the change stays, and [Node.Run] stores it when it can.
func (n *Node) SetInfo(ctx context.Context, change func(*Info)) error {
	n.mu.Lock()
	info := n.mu.info.clone()
	change(&info)
	n.mu.info = info.clone() // change may have kept a part of info
	n.mu.Unlock()
	if err := n.describe(ctx, n.current()); err != nil {
		n.redescribe()
		return fmt.Errorf("nodes: store the description of %s: %w", n.id, err)
	}
	return nil
}

// redescribe has the description stored soon.
func (n *Node) redescribe() {
	select {
	case n.stale <- struct{}{}:
	default:
	}
}

// Run keeps the node registered until ctx ends, and then leaves: it answers no
// more, and its key goes, so that others know within milliseconds. If the lease
// is lost it registers again, under a new incarnation, however long that takes.
// It returns [ErrTaken] if the ID belongs to another process by then, and
// otherwise nil.
func (n *Node) Run(ctx context.Context) error {
	describing, stop := context.WithCancel(ctx)
	var loop sync.WaitGroup
	loop.Go(func() { n.keepDescribed(describing) })
	err := n.keepRegistered(ctx)
	stop()
	loop.Wait()
	n.leave(ctx)
	return err
}

// leaveTime bounds how long a node tries to say that it leaves.
const leaveTime = 2 * time.Second

// leave ends the answers first: whoever finds the key gone shall not be told
// that the node is there.
func (n *Node) leave(ctx context.Context) {
	if err := n.ctl.Unsubscribe(); err == nil {
		<-n.quiet
	}
	n.deafen()
	n.heeding.Wait()
	n.release(ctx)
}

// release gives the key back.
func (n *Node) release(ctx context.Context) {
	if err := giveUp(ctx, n.current()); err != nil {
		n.opts.Logger.InfoContext(ctx, "key of node not deleted, it expires", "node", n.id, "err", err)
	}
}

func (n *Node) current() *kv.Lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.lease
}

// listen begins to answer requests.
func (n *Node) listen(ctx context.Context) error {
	ctx, n.deafen = context.WithCancel(context.WithoutCancel(ctx))
	sub, err := n.nc.Subscribe(n.opts.Namespace.CtlSubject(n.id), func(msg *nats.Msg) { n.answer(ctx, msg) })
	if err != nil {
		n.deafen()
		return err
	}
	sub.SetClosedHandler(func(string) { close(n.quiet) })
	n.ctl = sub
	// The server should know before anything is claimed. If it is away now, the
	// client tells it when it is back.
	_ = n.nc.FlushTimeout(patience)
	return nil
}

// answer replies to one request. Until ctx ends, it may do so later.
func (n *Node) answer(ctx context.Context, msg *nats.Msg) {
	r := reply{Incarnation: n.held()}
	req, err := decode[request](msg, ctlType, ctlVersion)
	switch {
	case err != nil:
		r.Error = err.Error()
	case req.Do == doRuns:
		r.Runs = n.opts.Runs(req.Job, req.Token)
	case req.Do == doEnd:
		n.opts.End(req.Job, req.Token, req.Cause)
	case req.Do == doLook:
		n.opts.Look()
	case req.Do == doDrain, req.Do == doUndrain:
		n.heed(ctx, msg, req.Do == doDrain)
		return
	case req.Do == doAlive:
		r.Running, r.Draining = n.opts.Load(), n.Info().Draining
	default:
		r.Error = fmt.Sprintf("this build cannot %q: upgrade it", req.Do)
	}
	n.reply(msg, r)
}

// held returns the present incarnation, or 0 between two registrations.
func (n *Node) held() uint64 {
	if lease := n.current(); lease.Valid() {
		return lease.Epoch()
	}
	return 0
}

// reply answers a request.
func (n *Node) reply(msg *nats.Msg, r reply) {
	out, err := message(msg.Reply, ctlType, ctlVersion, r)
	if err == nil && msg.Reply != "" {
		err = n.nc.PublishMsg(out)
	}
	if err != nil {
		n.opts.Logger.Debug("request not answered", "node", n.id, "err", err) // whoever asked asks again
	}
}

// defaultID makes an ID of the name of the host.
func defaultID(host string) string {
	const random = 4
	host = name.Token(strings.ReplaceAll(host, ".", "-"))
	return host[:min(len(host), name.MaxToken-random-1)] + "-" + strings.ToLower(rand.Text()[:random])
}
