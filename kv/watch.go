package kv

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/direct"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Kind says what an [Event] tells.
type Kind string

// The kinds of events.
const (
	Put     Kind = "put"     // the key has a new value
	Deleted Kind = "deleted" // the key has no value any more; Revision is that of the marker, or 0
	Listed  Kind = "listed"  // everything that there was has been told; the entry is zero
)

// Event is something that a watch tells.
type Event[T any] struct {
	Kind  Kind
	Entry Entry[T]
}

const (
	watchHeartbeat = 5 * time.Second        // the server says at least this often that it is there
	watchExpiry    = 30 * time.Second       // how long one pull lasts
	watchAgain     = 250 * time.Millisecond // the pause before the next listing after a failure
)

// Why a session ends, apart from what the client reports.
var (
	errReconnected = errors.New("the connection was re-established")
	errGap         = errors.New("a message is missing")
)

// Watch calls fn with what keys that match filter have, and then with every
// change, until ctx ends; then it returns nil. Calls come one after the other.
//
// At the start it lists everything and then tells Listed. Whenever it may have
// missed something, such as after a reconnect, it lists again: it tells what has
// another revision than before, tells Deleted for keys that are gone, and then
// Listed. So a reader never keeps a ghost, but it does not see every revision.
//
// It does not hear of [Bucket.Remove] before the next listing. It returns an
// error only if the connection is closed for good.
func (b *Bucket[T]) Watch(ctx context.Context, filter string, fn func(Event[T])) error {
	nc := b.pub.Conn()
	js, err := b.pub.JetStream()
	if err != nil {
		return b.failed("watch", filter, err)
	}
	status := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	w := &watch[T]{bucket: b, js: js, filter: filter, fn: fn, known: make(map[string]uint64)}
	said := "" // the last reason in the log, so that it is there once
	for {
		drain(status)
		err := w.session(ctx, status)
		switch {
		case ctx.Err() != nil:
			return nil
		case nc.IsClosed():
			return b.failed("watch", filter, nats.ErrConnectionClosed)
		case errors.Is(err, errReconnected):
			continue
		case err.Error() != said:
			said = err.Error()
			b.log.Warn("watch interrupted", "bucket", b.name, "filter", filter, "err", err)
		}
		again := time.NewTimer(watchAgain)
		if !nc.IsConnected() {
			again.Stop()
		}
		select {
		case <-ctx.Done():
		case <-status:
		case <-again.C:
		}
		again.Stop()
	}
}

func drain(status <-chan nats.Status) {
	for {
		select {
		case <-status:
		default:
			return
		}
	}
}

// watch is what one call of Watch knows.
type watch[T any] struct {
	bucket *Bucket[T]
	js     jetstream.JetStream
	filter string
	fn     func(Event[T])
	known  map[string]uint64 // the revision of every key that was told
}

// session is one consumer: it lists, and then follows. Whatever goes wrong with
// it ends it, and the next one lists again.
type session[T any] struct {
	*watch[T]
	broken chan error // why the session ends

	mu    sync.Mutex
	seen  map[string]struct{} // keys of the listing; nil once it is complete
	heard uint64              // messages of the consumer
	ended bool
}

// session runs until something goes wrong, and says what.
func (w *watch[T]) session(ctx context.Context, status <-chan nats.Status) error {
	s := &session[T]{watch: w, broken: make(chan error, 1), seen: make(map[string]struct{})}
	consumer, err := s.consumer(ctx)
	if err != nil {
		return err
	}
	if consumer.CachedInfo().NumPending == 0 {
		s.listed()
	}
	following, err := consumer.Consume(s.hear,
		jetstream.PullExpiry(watchExpiry),
		jetstream.PullHeartbeat(watchHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { s.fail(err) }),
	)
	if err != nil {
		return err
	}
	defer s.end(ctx, following, consumer.CachedInfo().Name)

	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-status:
			return errReconnected
		case err := <-s.broken:
			return err
		case <-look.C:
			if s.listing() {
				s.look(ctx, consumer)
			} else {
				look.Stop()
			}
		}
	}
}

func (s *session[T]) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, direct.Patience)
	defer cancel()
	return s.js.CreateConsumer(ctx, s.bucket.Stream(), jetstream.ConsumerConfig{
		FilterSubject:     s.bucket.prefix + s.filter,
		DeliverPolicy:     jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: 2 * watchExpiry,
	})
}

// end stops following and waits until nothing is heard any more.
func (s *session[T]) end(ctx context.Context, following jetstream.ConsumeContext, consumer string) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	following.Stop()
	<-following.Closed()
	if s.bucket.pub.Conn().IsConnected() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.js.DeleteConsumer(ctx, s.bucket.Stream(), consumer) // it goes by itself, later
	}
}

// hear takes one message of the consumer.
func (s *session[T]) hear(msg jetstream.Msg) {
	meta, err := msg.Metadata()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if err == nil && meta.Sequence.Consumer != s.heard+1 {
		err = errGap
	}
	if err != nil {
		s.ended = true
		s.fail(err)
		return
	}
	s.heard++
	s.tell(stored{msg.Subject(), meta.Sequence.Stream, meta.Timestamp, msg.Headers(), msg.Data()})
	if meta.NumPending == 0 {
		s.complete()
	}
}

// tell passes on what is new. The caller holds the lock.
func (s *session[T]) tell(m stored) {
	key := strings.TrimPrefix(m.subject, s.bucket.prefix)
	revision, known := s.known[key]
	if m.marker() {
		if known {
			delete(s.known, key)
			s.fn(Event[T]{Deleted, Entry[T]{Key: key, Revision: m.sequence, Stored: m.time}})
		}
		return
	}
	if s.seen != nil {
		s.seen[key] = struct{}{}
	}
	if known && revision == m.sequence {
		return
	}
	s.known[key] = m.sequence
	if e, ok := s.bucket.value(m); ok {
		s.fn(Event[T]{Put, e})
	}
}

// complete ends the listing. The caller holds the lock.
func (s *session[T]) complete() {
	if s.seen == nil {
		return
	}
	for key := range s.known {
		if _, ok := s.seen[key]; !ok {
			delete(s.known, key)
			s.fn(Event[T]{Deleted, Entry[T]{Key: key}})
		}
	}
	s.seen = nil
	s.fn(Event[T]{Kind: Listed})
}

func (s *session[T]) listed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete()
}

func (s *session[T]) listing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen != nil
}

// look finds out that the listing is complete when its last messages were
// removed before they were delivered.
func (s *session[T]) look(ctx context.Context, consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && info.NumPending == 0 && info.Delivered.Consumer == s.heard {
		s.complete()
	}
}

// fail ends the session.
func (s *session[T]) fail(err error) {
	select {
	case s.broken <- err:
	default:
	}
}
