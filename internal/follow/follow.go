package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

// Message is a message of a stream, as it was stored.
type Message struct {
	Subject  string
	Header   nats.Header
	Data     []byte // nil if only headers are read
	Sequence uint64
	Time     time.Time // when it was stored, by the server's clock
	Pending  uint64    // how many messages matched behind it when it was sent
}

// Options says what to read. The zero value of a field means its default.
type Options struct {
	// Stream is the name of the stream. It is required, but the stream need
	// not be there yet.
	Stream string

	// Filters are the subjects of the messages, which may have wildcards but
	// may not overlap. Default: everything.
	Filters []string

	// From is the first sequence of the stream to visit. Default 1.
	From uint64

	// Until is the last sequence to visit; then Run returns. It is the last one that
	// there is, if that comes first. Default: none.
	Until uint64

	// Headers asks for the headers only.
	Headers bool

	// Lag is how old a message must be, by Now, before it is visited. A message
	// that another replaces meanwhile is skipped as a rule. Default 0.
	Lag time.Duration

	// Now is the clock for Lag. Default time.Now.
	Now func() time.Time

	// Beat is how often the server says that it is there while nothing comes.
	// After two and a half of them without a word it is taken for deaf. Default
	// 2s.
	Beat time.Duration
	// Batch bounds the messages of one pull, and so what is kept in memory.
	// Default 500.
	Batch int

	// Logger receives what interrupted the reading. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.From == 0 {
		o.From = 1
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Batch == 0 {
		o.Batch = 500
	}
	if o.Beat == 0 {
		o.Beat = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// validate reports everything that is wrong with o.
func (o Options) validate() error {
	var errs []error
	if o.Stream == "" {
		errs = append(errs, errors.New("stream is required"))
	}
	if o.Lag < 0 {
		errs = append(errs, fmt.Errorf("lag %v is negative", o.Lag))
	}
	if o.Beat < 0 {
		errs = append(errs, fmt.Errorf("beat is %v", o.Beat))
	}
	if o.Batch < 0 {
		errs = append(errs, fmt.Errorf("batch %d is negative", o.Batch))
	}
	return errors.Join(errs...)
}

// again is the pause before the next session after one that failed.
const again = 250 * time.Millisecond

// Run visits the messages of a stream in the order of their sequences, one after
// the other and each once, until ctx ends or everything up to Options.Until has
// been visited; then it returns nil. An error of visit ends it, and is returned.
//
// It goes on behind the last visited message when the connection, the consumer
// or a message was lost, and waits while NATS is away or the stream is not
// there. A stream that was made anew, or lost its end in a crash, is visited
// from sequence 1. Apart from visit only a closed connection is an error.
func Run(ctx context.Context, pub *publish.Publisher, opts Options, visit func(Message) error) error {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return fmt.Errorf("follow: read stream %q: %w", opts.Stream, err)
	}
	js, err := pub.JetStream()
	if err != nil {
		return fmt.Errorf("follow: read stream %s: %w", opts.Stream, err)
	}
	nc := pub.Conn()
	status := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	f := &follower{Options: opts, pub: pub, nc: nc, js: js, visit: visit, status: status, visited: opts.From - 1, patience: hurry}
	for {
		f.drain()
		err := f.session(ctx)
		var refused refusal
		switch {
		case ctx.Err() != nil, errors.Is(err, errComplete):
			return nil
		case errors.As(err, &refused):
			return refused.error
		case nc.IsClosed():
			return fmt.Errorf("follow: read stream %s: %w", opts.Stream, nats.ErrConnectionClosed)
		}
		f.prepare(ctx, err)
	}
}

// Why a session ends, apart from what the server or the client reports.
var (
	errComplete    = errors.New("everything has been visited")
	errReconnected = errors.New("the connection was re-established")
	errStartedOver = errors.New("the stream started over")
	errGap         = errors.New("a message is missing")
	errDeaf        = errors.New("the server is silent")
)

// refusal is an error of visit.
type refusal struct{ error }

// follower is what one call of Run knows.
type follower struct {
	Options
	pub    *publish.Publisher
	nc     *nats.Conn
	js     jetstream.JetStream
	visit  func(Message) error
	status chan nats.Status // connected again, or closed

	visited  uint64        // the last sequence that was visited, or the one before the first
	patience time.Duration // for the next requests
	created  time.Time     // when the stream was made; zero: not known yet
	told     string        // the last reason in the log, so that it is there once
}

// drain forgets what happened to the connection until now.
func (f *follower) drain() {
	for {
		select {
		case <-f.status:
		default:
			return
		}
	}
}

// prepare waits until the next session is worth while, after one that ended for
// a reason.
func (f *follower) prepare(ctx context.Context, err error) {
	if errors.Is(err, errReconnected) || errors.Is(err, errStartedOver) {
		f.patience = hurry
		return
	}
	if errors.Is(err, context.DeadlineExceeded) {
		f.patience = min(2*f.patience, patience)
	} else {
		f.patience = hurry
	}
	if err.Error() != f.told {
		f.told = err.Error()
		f.Logger.Warn("reading of stream interrupted", "stream", f.Stream, "err", err)
	}
	f.pause(ctx)
}

// pause waits until it is worth trying again.
func (f *follower) pause(ctx context.Context) {
	timer := time.NewTimer(again)
	defer timer.Stop()
	if !f.nc.IsConnected() {
		timer.Stop()
	}
	select {
	case <-ctx.Done():
	case <-f.status:
	case <-timer.C:
	}
}
