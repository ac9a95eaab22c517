package publish

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrUnsent is returned for a message that did not leave this process,
	// because the connection is down or the publisher is closed. It relies on
	// nats.ReconnectBufSize(-1): a connection that buffers while it is down
	// sends such messages later, and they fail with [ErrUnknown].
	ErrUnsent = errors.New("not sent")

	// ErrUnknown is returned for a message that was sent and never answered:
	// the time ran out, the connection broke or the publisher was closed. The
	// message may have been stored, and it may still be stored later.
	ErrUnknown = errors.New("outcome unknown")

	// ErrClosed is wrapped by the [ErrUnsent] of a publisher that is closed: no
	// later try has another outcome.
	ErrClosed = errors.New("the publisher is closed")
)

// Reasons that go with the two errors above, made once.
var (
	errClosed = fmt.Errorf("publish: %w: %w", ErrUnsent, ErrClosed)
	errClose  = fmt.Errorf("publish: %w: the publisher was closed", ErrUnknown)
	errBroken = fmt.Errorf("publish: %w: the connection broke", ErrUnknown)
)

// Options configures a [Publisher]. The zero value of a field means its default.
type Options struct {
	// Timeout is how long a message waits for its answer. Default 5s.
	Timeout time.Duration

	// MaxPending is how many messages may be in flight before
	// [Publisher.Room] and [Publisher.Publish] wait. Default 4096. A stream
	// refuses more than 10,000 that wait to be stored, from all its clients.
	MaxPending int

	// Silence is for how long JetStream may give no sign of life, although it is
	// asked, until another connection is made: to another server if there is one.
	// Default 10s, which is longer than an election.
	Silence time.Duration

	// Domain is the JetStream domain to use, see [Publisher.API]. Default: that
	// of the server.
	Domain string
}

func (o Options) withDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxPending == 0 {
		o.MaxPending = 4096
	}
	if o.Silence == 0 {
		o.Silence = 10 * time.Second
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout is %v", o.Timeout))
	}
	if o.MaxPending < 0 {
		errs = append(errs, fmt.Errorf("max pending is %d", o.MaxPending))
	}
	if o.Silence < 0 {
		errs = append(errs, fmt.Errorf("silence is %v", o.Silence))
	}
	return errors.Join(append(errs, CheckDomain(o.Domain))...)
}

// Publisher publishes to JetStream over one connection. It is safe for
// concurrent use. Make one with [New] and share it: it costs one subscription
// and one goroutine, which does nothing while nothing is in flight.
type Publisher struct {
	nc       *nats.Conn
	opts     Options
	sub      *nats.Subscription
	inbox    string           // with a dot at its end
	drained  chan struct{}    // closed when the subscription calls nobody any more
	watched  chan struct{}    // closed when watch has returned
	status   chan nats.Status // every change of the connection's state
	names    names            // for the dispatching goroutine
	silence  silence          // of JetStream
	unstored silence          // of streams: nobody takes what is to be stored
	silent   chan struct{}    // told that JetStream is silent for too long
	began    time.Time

	mu struct {
		sync.Mutex
		calls  window
		timer  *time.Timer   // fires when the oldest call may have waited too long
		armed  bool          // the timer is set
		room   chan struct{} // closed when there is room again; nil if nobody waits
		closed bool
	}
}

// New returns a publisher on nc. Close it before nc.
func New(nc *nats.Conn, opts ...Options) (*Publisher, error) {
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("publish: check options: %w", err)
	}
	p := &Publisher{
		nc:      nc,
		opts:    o,
		inbox:   nc.NewInbox() + ".",
		drained: make(chan struct{}),
		watched: make(chan struct{}),
		names:   make(names),
		silent:  make(chan struct{}, 1),
		began:   time.Now(),
	}
	sub, err := nc.Subscribe(p.inbox+"*", p.dispatch)
	if err != nil {
		return nil, fmt.Errorf("publish: subscribe to inbox: %w", err)
	}
	p.sub = sub
	sub.SetClosedHandler(func(string) { close(p.drained) })
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("publish: lift limits of inbox: %w", err)
	}
	if !sub.IsValid() { // closed before its handler was set, which may not be called
		return nil, fmt.Errorf("publish: subscribe to inbox: %w", nats.ErrConnectionClosed)
	}
	p.mu.timer = time.NewTimer(o.Timeout)
	p.mu.timer.Stop()
	p.status = nc.StatusChanged()
	go p.watch()
	return p, nil
}

// Conn returns the connection that p publishes on.
func (p *Publisher) Conn() *nats.Conn { return p.nc }

// PublishAsync publishes msg and calls done once with what became of it. It
// never waits, so done may publish again; whoever starts new work in a loop
// calls [Publisher.Room] first. It does not keep or change msg.
//
// Usually done is called by the goroutine that takes in all answers, so it must
// not block. It is called by the caller itself, before PublishAsync returns, if
// msg cannot be sent; and by another goroutine after a time-out or a broken
// connection. Calls of different messages may come at the same time.
func (p *Publisher) PublishAsync(msg *nats.Msg, done func(Ack, error)) {
	p.send(msg, call{done: done})
}

// Publish publishes msg and waits for its answer. If ctx ends while msg is in
// flight, the error wraps [ErrUnknown]. It must not be called by a callback of
// [Publisher.PublishAsync].
func (p *Publisher) Publish(ctx context.Context, msg *nats.Msg) (Ack, error) {
	if err := p.Room(ctx); err != nil {
		return Ack{}, err
	}
	type outcome struct {
		ack Ack
		err error
	}
	answered := make(chan outcome, 1)
	p.PublishAsync(msg, func(ack Ack, err error) { answered <- outcome{ack, err} })
	select {
	case o := <-answered:
		return o.ack, o.err
	case <-ctx.Done():
		return Ack{}, fmt.Errorf("publish: %w: %w", ErrUnknown, context.Cause(ctx))
	}
}

// Request sends data to subject and returns the first answer, such as that of
// the JetStream API. It waits for the time-out of p at most, and fails at once
// with [ErrUnknown] if the connection breaks. It must not be called by a callback
// of [Publisher.PublishAsync].
func (p *Publisher) Request(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	type outcome struct {
		msg *nats.Msg
		err error
	}
	answered := make(chan outcome, 1)
	p.send(&nats.Msg{Subject: subject, Data: data}, call{reply: func(msg *nats.Msg, err error) {
		answered <- outcome{msg, err}
	}})
	select {
	case o := <-answered:
		return o.msg, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("publish: request: %w: %w", ErrUnknown, context.Cause(ctx))
	}
}

// Room waits until fewer than MaxPending messages are in flight. It reserves
// nothing, so goroutines that call it at the same time may exceed that number a
// little. It must not be called by a callback of [Publisher.PublishAsync].
func (p *Publisher) Room(ctx context.Context) error {
	for {
		p.mu.Lock()
		if p.mu.closed || p.mu.calls.open < p.opts.MaxPending {
			p.mu.Unlock()
			return context.Cause(ctx)
		}
		if p.mu.room == nil {
			p.mu.room = make(chan struct{})
		}
		room := p.mu.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close fails what is in flight with [ErrUnknown], and whatever comes later
// with [ErrUnsent]. It returns when no callback runs any more, so no callback
// may call it.
func (p *Publisher) Close() {
	p.mu.Lock()
	first := !p.mu.closed
	p.mu.closed = true
	p.mu.Unlock()
	if first {
		p.nc.RemoveStatusListener(p.status)
		_ = p.sub.Unsubscribe() // fails only if the connection is closed, which ends it too
		p.fail(errClose, func(*call) bool { return true })
	}
	<-p.watched
	<-p.drained
}

// send registers c, so that an answer finds it, and sends msg.
func (p *Publisher) send(msg *nats.Msg, c call) {
	c.life = p.nc.Stats().Reconnects
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		c.fail(errClosed)
		return
	}
	c.sent = time.Since(p.began)
	n := p.mu.calls.add(c)
	if !p.mu.armed {
		p.mu.armed = true
		p.mu.timer.Reset(p.opts.Timeout)
	}
	p.mu.Unlock()
	p.silence.asked(c.sent)

	out := nats.Msg{Subject: p.route(msg.Subject), Reply: p.reply(n), Header: msg.Header, Data: msg.Data}
	if err := p.nc.PublishMsg(&out); err != nil {
		if c, ok := p.take(n); ok {
			c.fail(sendError(err))
		}
	}
}

// reply returns the reply subject of call n.
func (p *Publisher) reply(n uint64) string {
	var buf [96]byte
	return string(strconv.AppendUint(append(buf[:0], p.inbox...), n, 36))
}

// sendError says what err, which the connection returned instead of sending,
// means for the message.
func sendError(err error) error {
	switch {
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		return fmt.Errorf("publish: %w: %w", ErrUnsent, away{})
	case errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrConnectionDraining):
		return fmt.Errorf("publish: %w: %w", ErrUnsent, err)
	case errors.Is(err, nats.ErrMaxPayload),
		errors.Is(err, nats.ErrBadSubject),
		errors.Is(err, nats.ErrHeadersNotSupported),
		errors.Is(err, nats.ErrBadHeaderMsg):
		return fmt.Errorf("publish: %w", err)
	}
	return fmt.Errorf("publish: %w: %w", ErrUnknown, err) // it broke while writing
}

// away is [nats.ErrReconnectBufExceeded] in words: on a connection that buffers
// nothing it means that there is no connection now.
type away struct{}

func (away) Error() string { return "not connected to NATS" }
func (away) Unwrap() error { return nats.ErrReconnectBufExceeded }

// dispatch hands an answer to whoever waits for it. Answers that come too late
// are dropped.
func (p *Publisher) dispatch(msg *nats.Msg) {
	token, _ := strings.CutPrefix(msg.Subject, p.inbox)
	n, err := strconv.ParseUint(token, 36, 64)
	if err != nil {
		return
	}
	c, ok := p.take(n)
	p.heard(msg, ok && c.reply == nil) // also if it comes too late
	switch {
	case !ok:
	case noResponders(msg):
		c.fail(jetstream.ErrNoStreamResponse)
	case c.reply != nil:
		c.reply(msg, nil)
	default:
		c.done(parse(msg.Data, p.names))
	}
}

// noResponders reports whether the server itself answered, since nobody listens
// on the subject.
func noResponders(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}

// take ends call n and returns it, unless it has ended.
func (p *Publisher) take(n uint64) (call, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.mu.calls.take(n)
	if ok {
		p.makeRoom()
	}
	return c, ok
}

// makeRoom wakes those who wait in Room once a quarter of the window is free,
// so that they come in batches. The caller holds the lock.
func (p *Publisher) makeRoom() {
	if p.mu.room != nil && p.mu.calls.open <= p.opts.MaxPending*3/4 {
		close(p.mu.room)
		p.mu.room = nil
	}
}
