package follow

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// hurry is how long the server may take to answer a request at first, since
	// one that has just started may never do so. One that is busy gets twice as
	// long at each try, up to patience.
	hurry, patience = 2 * time.Second, 16 * time.Second

	// idle is how long the consumer stays, beyond the lag, when nobody pulls.
	idle = time.Minute
)

// A pull lasts for some time if it does not fill up before, and the server says
// every beat how far it is. Each pull makes the server look into the stream, so
// one that lasts too long would hide that the server forgot to.
type span struct{ life, beat time.Duration }

// glance is a pull that takes what is there.
var glance = span{200 * time.Millisecond, 50 * time.Millisecond}

// stay is a pull that waits for what is to come.
func (o Options) stay() span { return span{5 * o.Beat, o.Beat} }

// silence is how long a pull may go without a word from the server.
func (o Options) silence() time.Duration { return 5 * o.Beat / 2 }

// session is the life of one consumer.
type session struct {
	*follower
	inbox  string
	name   string // of the consumer
	target uint64 // the last sequence to visit

	msgs   chan *nats.Msg
	pulls  int           // counts the pulls, so that each has a subject of the inbox
	quiet  *time.Timer   // fires if the server says nothing
	heard  uint64        // messages of the consumer
	waited time.Duration // for the messages of a pull to grow old
}

// session visits until something goes wrong, and says what.
func (f *follower) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-f.status:
			cancel(errReconnected)
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)

	inbox := f.nc.NewInbox()
	s := &session{follower: f, inbox: inbox, name: inbox[strings.LastIndex(inbox, ".")+1:]}
	defer s.drop(ctx)
	if err := s.open(ctx); err != nil {
		return err
	}
	s.msgs = make(chan *nats.Msg, f.Batch+64) // a pull, and what is said about it
	sub, err := f.nc.ChanSubscribe(s.inbox+".*", s.msgs)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection is closed, which ends it too
	s.quiet = time.NewTimer(f.silence())
	defer s.quiet.Stop()
	return s.read(ctx)
}

// open makes the consumer, and finds out where it is in the stream.
func (s *session) open(ctx context.Context) error {
	consumer, stream, err := s.request(ctx)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	created, last := stream.Created, stream.State.LastSeq
	over := last < s.visited || !s.created.IsZero() && !created.Equal(s.created)
	s.created = created
	if over {
		s.Logger.Warn("stream started over", "stream", s.Stream, "visited", s.visited, "last", last)
		s.visited = 0
		return errStartedOver
	}
	s.target = math.MaxUint64
	if s.Until > 0 {
		s.target = min(s.Until, last)
	}
	return s.reached(consumer.Delivered.Stream)
}

// request makes the consumer, and then looks at the stream: one that is
// replaced in between has taken the consumer along.
func (s *session) request(ctx context.Context) (*jetstream.ConsumerInfo, *jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	consumer, err := s.js.CreateConsumer(ctx, s.Stream, jetstream.ConsumerConfig{
		Name:              s.name,
		FilterSubjects:    s.Filters,
		HeadersOnly:       s.Headers,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       s.visited + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: idle + s.Lag,
	})
	if err != nil {
		return nil, nil, err
	}
	stream, err := s.js.Stream(ctx, s.Stream)
	if err != nil {
		return nil, nil, err
	}
	return consumer.CachedInfo(), stream.CachedInfo(), nil
}

// reached reports that everything has been visited, if a position says so.
func (s *session) reached(position uint64) error {
	if position >= s.target {
		return errComplete
	}
	return nil
}

// drop removes the consumer. If that fails it goes by itself, later.
func (s *session) drop(ctx context.Context) {
	if s.nc.IsConnected() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.js.DeleteConsumer(ctx, s.Stream, s.name)
	}
}
