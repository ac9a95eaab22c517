package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// markerTTL is how long the marker of a deleted key stays, for watchers that
// were away.
const markerTTL = time.Hour

// Options configures a [Bucket]. The zero value of a field means its default.
type Options struct {
	// Logger receives one record for each value that cannot be decoded and is
	// passed over by a list or a watch. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// WriteOptions says how a value is written.
type WriteOptions struct {
	// TTL is how long the value lives, in whole seconds. 0 means until it is
	// deleted. A write without it lifts the TTL of the value before.
	TTL time.Duration
}

func (o WriteOptions) validate() error {
	if o.TTL < 0 || o.TTL%time.Second != 0 {
		return fmt.Errorf("time to live %v is not in whole seconds", o.TTL)
	}
	return nil
}

// Entry is a value at one revision.
type Entry[T any] struct {
	Key      string
	Value    T
	Revision uint64
	Stored   time.Time // by the server's clock
}

// Bucket is a set of values of one type, by key. It is safe for concurrent use
// and holds no resources of its own.
type Bucket[T any] struct {
	pub    *publish.Publisher
	name   string
	prefix string // of subjects, with a dot at its end
	codec  Codec[T]
	log    *slog.Logger
}

// Open returns the bucket of a name. It does not ask the server whether there
// is one.
func Open[T any](pub *publish.Publisher, bucket string, codec Codec[T], opts ...Options) *Bucket[T] {
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	return &Bucket[T]{
		pub:    pub,
		name:   bucket,
		prefix: "$KV." + bucket + ".",
		codec:  codec,
		log:    o.withDefaults().Logger,
	}
}

// Name returns the name of the bucket.
func (b *Bucket[T]) Name() string { return b.name }

// Stream returns the name of the stream that holds the bucket.
func (b *Bucket[T]) Stream() string { return "KV_" + b.name }

// Get returns the value of key, read from the leader. It returns [ErrNotFound]
// for a key that was never written, was deleted or has expired.
func (b *Bucket[T]) Get(ctx context.Context, key string) (Entry[T], error) {
	s, err := b.last(ctx, key)
	if err == nil && s.marker() {
		err = ErrNotFound
	}
	if err != nil {
		return Entry[T]{}, b.failed("get", key, err)
	}
	e, err := b.entry(s)
	if err != nil {
		return Entry[T]{}, b.failed("get", key, err)
	}
	return e, nil
}

// Create stores a value under a key that has none and returns its revision. A
// marker left by a delete or an expiry is written over. It returns [ErrExists]
// if there is a value, which may be the caller's own, from a call whose answer
// was lost.
func (b *Bucket[T]) Create(ctx context.Context, key string, v T, opts ...WriteOptions) (uint64, error) {
	expect := uint64(0)
	for race := 0; ; race++ {
		rev, err := b.put(ctx, key, v, expect, opts)
		if err == nil {
			return rev, nil
		}
		if !conflict(err) || race == maxRaces {
			return 0, b.failed("create", key, err)
		}
		s, readErr := b.last(ctx, key)
		switch {
		case errors.Is(readErr, ErrNotFound):
			expect = 0
		case readErr != nil:
			return 0, b.failed("create", key, errors.Join(err, readErr))
		case !s.marker():
			return 0, b.failed("create", key, fmt.Errorf("%w at revision %d", ErrExists, s.sequence))
		default:
			expect = s.sequence
		}
		if err := pause(ctx, race); err != nil {
			return 0, b.failed("create", key, err)
		}
	}
}

// Update replaces revision rev of key and returns the new revision. It returns
// [ErrConflict] if that may not be the current revision.
func (b *Bucket[T]) Update(ctx context.Context, key string, v T, rev uint64, opts ...WriteOptions) (uint64, error) {
	next, err := b.put(ctx, key, v, rev, opts)
	if err != nil {
		return 0, b.failed("update", key, err)
	}
	return next, nil
}

// CreateAsync is [Bucket.UpdateAsync] with the expectation that the key was
// never written. Unlike [Bucket.Create] it does not write over markers: those
// give [ErrConflict].
func (b *Bucket[T]) CreateAsync(key string, v T, done func(rev uint64, err error), opts ...WriteOptions) {
	b.putAsync("create", key, v, 0, done, opts)
}

// UpdateAsync is [Bucket.Update] without waiting. It calls done once, under the
// rules of [publish.Publisher.PublishAsync]: done must not block, and may write
// again. Whoever starts new work in a loop calls [publish.Publisher.Room] first.
func (b *Bucket[T]) UpdateAsync(key string, v T, rev uint64, done func(rev uint64, err error), opts ...WriteOptions) {
	b.putAsync("update", key, v, rev, done, opts)
}

// Delete ends the value of key at revision rev with a marker, of which watchers
// hear and which goes away by itself after an hour. It returns [ErrConflict] if
// that may not be the current revision.
func (b *Bucket[T]) Delete(ctx context.Context, key string, rev uint64) error {
	msg, err := b.message(key, rev, markerTTL, nil, nil)
	if err != nil {
		return b.failed("delete", key, err)
	}
	msg.Header[operationHeader] = []string{operationDelete}
	if _, err := b.pub.Publish(ctx, msg); err != nil {
		return b.failed("delete", key, wrapConflict(err))
	}
	return nil
}

// Remove takes revision rev of key away without leaving anything behind, so
// watchers do not hear of it and [Bucket.CreateAsync] works again. It does
// nothing, and returns nil, if key is at another revision: since a bucket
// keeps one revision of a key, rev is gone then.
func (b *Bucket[T]) Remove(ctx context.Context, key string, rev uint64) error {
	if err := b.pub.Erase(ctx, b.Stream(), rev); err != nil {
		return b.failed("remove", key, err)
	}
	return nil
}

// last reads the last message of key from the leader, be it a value or a
// marker. It returns ErrNotFound if there is none.
func (b *Bucket[T]) last(ctx context.Context, key string) (stored, error) {
	if err := checkKey(key); err != nil {
		return stored{}, err
	}
	m, err := b.pub.Message(ctx, b.Stream(), publish.Query{Last: b.prefix + key})
	if publish.Gone(err) {
		return stored{}, ErrNotFound
	}
	return storedOf(m), err
}

// put is a conditional write with the errors of the package, but without saying
// what it was for.
func (b *Bucket[T]) put(ctx context.Context, key string, v T, expect uint64, opts []WriteOptions) (uint64, error) {
	msg, err := b.encode(key, v, expect, opts)
	if err != nil {
		return 0, err
	}
	ack, err := b.pub.Publish(ctx, msg)
	return ack.Sequence, wrapConflict(err)
}

func (b *Bucket[T]) putAsync(verb, key string, v T, expect uint64, done func(uint64, error), opts []WriteOptions) {
	msg, err := b.encode(key, v, expect, opts)
	if err != nil {
		done(0, b.failed(verb, key, err))
		return
	}
	b.pub.PublishAsync(msg, func(ack publish.Ack, err error) {
		if err != nil {
			err = b.failed(verb, key, wrapConflict(err))
		}
		done(ack.Sequence, err)
	})
}

// encode returns the message that puts v in the place of revision expect.
func (b *Bucket[T]) encode(key string, v T, expect uint64, opts []WriteOptions) (*nats.Msg, error) {
	var o WriteOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	header, data, err := b.codec.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.message(key, expect, o.TTL, header, data)
}

// message returns the message that puts header and data in the place of
// revision expect. It adds to the header.
func (b *Bucket[T]) message(key string, expect uint64, ttl time.Duration, header nats.Header, data []byte) (*nats.Msg, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if header == nil {
		header = make(nats.Header, 2)
	}
	header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(expect, 10)}
	if ttl > 0 {
		header[jetstream.MsgTTLHeader] = []string{ttl.String()}
	}
	return &nats.Msg{Subject: b.prefix + key, Header: header, Data: data}, nil
}

// entry decodes s.
func (b *Bucket[T]) entry(s stored) (Entry[T], error) {
	v, err := b.codec.Decode(s.header, s.data)
	if err != nil {
		return Entry[T]{}, fmt.Errorf("decode revision %d: %w", s.sequence, err)
	}
	return Entry[T]{strings.TrimPrefix(s.subject, b.prefix), v, s.sequence, s.time}, nil
}

// failed adds to err what was tried.
func (b *Bucket[T]) failed(verb, key string, err error) error {
	return fmt.Errorf("kv: %s %s in %s: %w", verb, key, b.name, err)
}

// wrapConflict adds ErrConflict to what the server says about a conflict.
func wrapConflict(err error) error {
	if conflict(err) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

// checkKey refuses keys that are no literal subject, which would read or write
// something else.
func checkKey(key string) error {
	if key == "" || strings.ContainsAny(key, "*> \t\r\n") || strings.Contains("."+key+".", "..") {
		return fmt.Errorf("key %q is not made of words with dots between them", key)
	}
	return nil
}
