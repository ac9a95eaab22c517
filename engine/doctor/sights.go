package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// chart is what could be seen.
type chart struct {
	opts    Options
	nc      *nats.Conn
	pub     *publish.Publisher // nil while there is no connection
	denials *denials
	seen    map[*sight]bool

	trip     time.Duration // to the server and back
	account  *jetstream.AccountInfo
	lacks    map[string][]string // by role: what the user may not
	assets   []streams.Asset
	settings streams.Settings
	sync     syncing
	now      time.Time     // by the server's clock
	ahead    time.Duration // how much this machine's clock is ahead of it, or so
	uses     []streams.Use
	ended    uint64
	nodes    []nodes.Member
	backlogs map[string]streams.Backlog
	jobs     jobs
	gone     map[string]time.Time // since when nodes are offline that have jobs
	stuck    []string             // jobs without an item
	partless []string             // jobs that wait for parts which have ended
	overdue  overdue

	schedules []schedule
	strays    []string // schedules of which there is a cursor only
}

// sight is one thing to look at.
type sight struct {
	name     string
	needs    []*sight
	patience time.Duration // default: a few answers
	see      func(*chart, context.Context) error
}

const (
	// sightTime is how long a sight may take that needs a few answers.
	sightTime = 2*answerTime + time.Second
	// scanTime is how long one may take that reads a whole stream.
	scanTime = 20 * time.Second
)

var (
	seeConnection = &sight{name: "the connection", see: (*chart).seeConnection}
	seeAccount    = &sight{name: "the account", needs: []*sight{seeConnection}, see: (*chart).seeAccount}
	seeSync       = &sight{name: "how the server syncs", needs: []*sight{seeConnection}, see: (*chart).seeSync}
	seeRoles      = &sight{name: "permissions", needs: []*sight{seeAssets}, see: (*chart).seeRoles}
	seeAssets     = &sight{name: "the streams", needs: []*sight{seeConnection}, see: (*chart).seeAssets}
	seeSettings   = &sight{name: "the settings", needs: []*sight{seeAssets}, see: (*chart).seeSettings}
	seeClock      = &sight{name: "the server's clock", needs: []*sight{seeAssets}, see: (*chart).seeClock}
	seeLimits     = &sight{name: "the limits", needs: []*sight{seeAssets}, see: (*chart).seeLimits}
	seeNodes      = &sight{name: "the nodes", needs: []*sight{seeAssets}, see: (*chart).seeNodes}
	seeBacklogs   = &sight{name: "the consumers of queues", needs: []*sight{seeAssets}, see: (*chart).seeBacklogs}
	seeJobs       = &sight{name: "the jobs", needs: []*sight{seeNodes, seeClock}, patience: scanTime, see: (*chart).seeJobs}
	seeGone       = &sight{name: "since when nodes are offline", needs: []*sight{seeJobs, seeSettings}, see: (*chart).seeGone}
	seeStuck      = &sight{name: "the items of jobs", needs: []*sight{seeJobs}, see: (*chart).seeStuck}
	seeParts      = &sight{name: "the parts of jobs", needs: []*sight{seeJobs}, see: (*chart).seeParts}
	seeSchedules  = &sight{name: "the schedules", needs: []*sight{seeNodes, seeClock}, patience: scanTime, see: (*chart).seeSchedules}
	seeTimers     = &sight{name: "the timers", needs: []*sight{seeAssets, seeClock}, patience: scanTime, see: (*chart).seeTimers}
)

// sights are in the order in which they are looked at: what is needed comes
// first.
var sights = []*sight{
	seeConnection, seeAccount, seeSync, seeAssets, seeRoles, seeSettings, seeClock, seeLimits,
	seeNodes, seeBacklogs, seeJobs, seeGone, seeStuck, seeParts, seeTimers, seeSchedules,
}

// A diagnosis is why a sight cannot be seen, where that is a finding itself.
// Nothing is looked at that comes after it and needs the sight.
type diagnosis struct{ Finding }

// Error returns the finding.
func (d diagnosis) Error() string { return d.String() }

func diagnose(check, text, remedy string) error {
	return diagnosis{Finding{Level: Wrong, Check: check, Text: text, Remedy: remedy}}
}

// look looks at everything that can be seen, and returns what cannot, and why.
func (c *chart) look(ctx context.Context) (found []Finding) {
	for _, s := range sights {
		if ctx.Err() != nil || !c.sees(s.needs...) {
			continue
		}
		err, why := c.lookAt(ctx, s)
		if errors.Is(err, publish.ErrUnknown) && why == nil {
			err, why = c.lookAt(ctx, s) // once more: an answer may be lost
		}
		var d diagnosis
		switch {
		case err == nil:
			c.seen[s] = true
		case errors.As(err, &d):
			found = append(found, d.Finding)
		case why != nil:
			found = append(found, unseen(s, why))
		default:
			found = append(found, unseen(s, err))
		}
	}
	return found
}

// lookAt looks at one thing. It also returns what was denied meanwhile, if
// something was.
func (c *chart) lookAt(ctx context.Context, s *sight) (err, denied error) {
	patience := s.patience
	if patience == 0 {
		patience = sightTime
	}
	ctx, stop := c.denials.during(ctx, patience)
	defer stop()
	err = s.see(c, ctx)
	if d := (deniedError{}); errors.As(context.Cause(ctx), &d) {
		denied = d
	}
	return err, denied
}

// sees reports whether all of some sights were seen.
func (c *chart) sees(all ...*sight) bool {
	for _, s := range all {
		if !c.seen[s] {
			return false
		}
	}
	return true
}

// unseen says why a sight could not be seen.
func unseen(s *sight, err error) Finding {
	why := strings.ReplaceAll(err.Error(), "\n", "; ")
	f := Finding{Level: Unseen, Check: "sight", Text: fmt.Sprintf("could not look at %s: %s", s.name, why)}
	var denied deniedError
	switch {
	case errors.As(err, &denied):
		f.Remedy = "let this user do that, or ask as another"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, publish.ErrUnknown):
		f.Remedy = "see whether the streams have a leader, and ask again"
	default:
		f.Remedy = "see the log of the server"
	}
	return f
}

func (c *chart) seeConnection(ctx context.Context) error {
	if c.pub == nil {
		return diagnose("connection", "there is no connection to NATS", "see whether the server runs")
	}
	began := time.Now()
	err := c.nc.FlushWithContext(ctx)
	c.trip = time.Since(began)
	settle(context.WithoutCancel(ctx)) // what is denied of the inbox is heard late, or was before
	denied := c.denials.take()
	switch {
	case len(denied) > 0:
		return diagnose("connection", deniedError{denied[0]}.Error()+", so nothing that is asked is answered", "let it subscribe to its inbox, _INBOX.> by default")
	case err != nil:
		return diagnose("connection", fmt.Sprintf("%s does not answer: %v", c.nc.ConnectedUrlRedacted(), err), "see whether the server runs")
	}
	return nil
}

// settle waits until denials of what the server has read by now were heard.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

func (c *chart) seeAccount(ctx context.Context) (err error) {
	c.account, err = streams.Account(ctx, c.pub)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return c.without("the account of this user has no JetStream", "enable it for the account, or use another")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled) && c.opts.Domain != "":
		return c.without(fmt.Sprintf("there is no JetStream domain %s", c.opts.Domain), "set the domain that the configuration of nats-server has, or none")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return c.without(c.nc.ConnectedUrlRedacted()+" has no JetStream", "start nats-server with -js, or, on a leaf node, name the domain of its hub with --js-domain")
	}
	return err
}

// without is how it is where there is no JetStream: there is nothing more to see.
func (c *chart) without(text, remedy string) error {
	delete(c.seen, seeConnection)
	return diagnose("jetstream", text, remedy)
}

func (c *chart) seeAssets(ctx context.Context) (err error) {
	if c.assets, err = streams.Inspect(ctx, c.opts.Namespace, c.pub); err != nil {
		return err
	}
	for _, a := range c.assets {
		if a.Info != nil {
			return nil
		}
	}
	return diagnose("namespace", fmt.Sprintf("there is no namespace %s", c.opts.Namespace), `name another one, or start "millrace serve" to make it`)
}

func (c *chart) seeSettings(ctx context.Context) (err error) {
	c.settings, err = streams.Stored(ctx, c.opts.Namespace, c.pub)
	if errors.Is(err, kv.ErrNotFound) {
		return diagnose("namespace", fmt.Sprintf("namespace %s has no settings", c.opts.Namespace), `start "millrace serve", which makes what is missing`)
	}
	return err
}

func (c *chart) seeClock(ctx context.Context) error {
	clock := streams.NewClock(c.opts.Namespace, c.pub)
	if err := clock.Measure(ctx); err != nil {
		return err
	}
	c.now, c.ahead = clock.Now(), time.Since(clock.Now())
	return nil
}

func (c *chart) seeLimits(ctx context.Context) (err error) {
	limits := streams.NewLimits(c.opts.Namespace, c.pub)
	if c.uses, err = limits.Uses(ctx); err != nil {
		return err
	}
	c.ended, err = limits.Ended(ctx)
	return err
}

func (c *chart) seeNodes(ctx context.Context) (err error) {
	c.nodes, err = nodes.List(ctx, c.pub, c.opts.Namespace)
	return err
}

func (c *chart) seeBacklogs(ctx context.Context) (err error) {
	c.backlogs, err = streams.Backlogs(ctx, c.opts.Namespace, c.pub)
	return err
}
