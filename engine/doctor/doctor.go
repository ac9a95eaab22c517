// Package doctor looks at an installation and says what is wrong with it, and
// what to do about that.
//
//	Examine      looks, checks, and returns what it found      doctor.go
//	sight        what there is to look at                      sights.go, scan.go
//	check        what is found in what was seen                checks.go
//	             the server, its clock, its permissions        server.go, permissions.go
//	             the assets and their limits                   assets.go
//	             nodes, queues, and jobs that are stuck        nodes.go, stuck.go
//	             schedules                                     schedules.go
//
// Start reading at [Examine], then at the lists of sights and of checks. Sights
// ask the server; checks are functions of what was seen, and ask nobody.
//
// It writes nothing, and needs no namespace, no JetStream and no right but to
// connect: what it may not look at, it says so.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Level is how bad a finding is.
type Level string

// The levels, the worst first.
const (
	Wrong   Level = "wrong"   // jobs do not go on as they should, or soon will not
	Warning Level = "warning" // it works, and somebody should look
	Unseen  Level = "unseen"  // it could not be looked at
	Fine    Level = "fine"    // nothing is to be done; the text says how it is
)

// Finding is what a check has to say. Its JSON is stable, the wording aside.
type Finding struct {
	Level  Level  `json:"level"`
	Check  string `json:"check"`
	Text   string `json:"finding"` // one line
	Remedy string `json:"remedy"`  // what to do; empty if it is fine
}

// String returns the finding as one line.
func (f Finding) String() string {
	if f.Remedy == "" {
		return f.Text
	}
	return f.Text + ": " + f.Remedy
}

// Options configures [Examine]. The zero value of a field means its default.
type Options struct {
	// Namespace is the installation to look at. Default
	// streams.DefaultNamespace.
	Namespace streams.Namespace
	// Domain is the JetStream domain. Default: that of the server.
	Domain string
	// Role is what the user of the connection has to be able to do: see
	// [Roles]. What it lacks is wrong then. Default: whatever it can, and what
	// it cannot is fine.
	Role string
	// Queue is the queue for which a role is wanted, for users who are let into
	// some queues only. Default: one that nobody has.
	Queue string
	// MostEnded is how many records of jobs that have ended are a lot. Default
	// streams.MostEnded.
	MostEnded uint64
	// MostScanned bounds how many jobs, and how many timers, are read. Default
	// 1,000,000.
	MostScanned uint64
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Queue == "" {
		o.Queue = probe
	}
	if o.MostEnded == 0 {
		o.MostEnded = streams.MostEnded
	}
	if o.MostScanned == 0 {
		o.MostScanned = 1_000_000
	}
	return o
}

func (o Options) validate() error {
	errs := []error{name.Check("namespace", string(o.Namespace)), name.Check("queue", o.Queue)}
	if o.Role != "" && !slices.Contains(Roles, o.Role) {
		errs = append(errs, fmt.Errorf("doctor: there is no role %q: use one of %s", o.Role, strings.Join(Roles, ", ")))
	}
	return errors.Join(errs...)
}

// Examine looks at a namespace over a connection and returns what it found, in
// the order of the checks; of each check that had nothing to say, that it is
// fine. The connection should have no other use meanwhile: its error handler is
// replaced, since a server tells nobody else what it denies.
//
// An error means that the options are wrong or that ctx has ended.
func Examine(ctx context.Context, nc *nats.Conn, opts Options) ([]Finding, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	denials := listen(nc)
	defer denials.close()
	c := &chart{opts: opts, nc: nc, denials: denials, seen: map[*sight]bool{}}
	if nc.IsConnected() {
		pub, err := publish.New(nc, publish.Options{Domain: opts.Domain, Timeout: answerTime})
		if err != nil {
			return nil, fmt.Errorf("doctor: %w", err)
		}
		defer pub.Close()
		c.pub = pub
	}
	found := c.look(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return append(found, c.examine()...), nil
}

// answerTime is how long the server may take to answer one request.
const answerTime = 2 * time.Second

// denials hears what the server denies on a connection.
type denials struct {
	nc     *nats.Conn
	before nats.ErrHandler

	mu      sync.Mutex
	denied  []string                // subjects, with what was to be done: publish to "a.b"
	waiting context.CancelCauseFunc // of the sight that looks now
}

// deniedError is why a sight ends when the server denies something.
type deniedError struct{ what string }

func (e deniedError) Error() string { return "this user may not " + e.what }

// listen begins to hear what is denied. Everything else goes to the handler that
// was there before.
func listen(nc *nats.Conn) *denials {
	d := &denials{nc: nc, before: nc.ErrorHandler()}
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			d.note(err)
		} else if d.before != nil {
			d.before(nc, sub, err)
		}
	})
	return d
}

func (d *denials) close() { d.nc.SetErrorHandler(d.before) }

// note keeps what was denied, and ends the sight that wanted it.
func (d *denials) note(err error) {
	_, what, _ := strings.Cut(strings.ReplaceAll(err.Error(), "\n", " "), "Permissions Violation for ")
	what = strings.Replace(what, "Publish to", "publish to", 1)
	what = strings.Replace(what, "Subscription to", "subscribe to", 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denied = append(d.denied, what)
	if d.waiting != nil {
		d.waiting(deniedError{what})
	}
}

// during returns a context that ends when something is denied.
func (d *denials) during(ctx context.Context, patience time.Duration) (context.Context, func()) {
	ctx, stop := context.WithTimeout(ctx, patience)
	ctx, cancel := context.WithCancelCause(ctx)
	d.mu.Lock()
	d.waiting = cancel
	d.mu.Unlock()
	return ctx, func() {
		d.mu.Lock()
		d.waiting = nil
		d.mu.Unlock()
		cancel(nil)
		stop()
	}
}

// take returns what was denied since it was called last.
func (d *denials) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	denied := d.denied
	d.denied = nil
	return denied
}
