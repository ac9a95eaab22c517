package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/millrace/millrace/internal/publish"
)

var (
	// ErrHeld is returned when somebody else holds a lease. The error names
	// the holder.
	ErrHeld = errors.New("held")

	// ErrLeaseLost is why a lease's context ends: it was not renewed in time,
	// somebody else has it, or it was released.
	ErrLeaseLost = errors.New("lease lost")
)

// Held is what is stored under the key of a lease while somebody holds it.
type Held struct {
	// Holder is who holds it.
	Holder string `json:"holder"`

	// Token is random and tells one holding from every other.
	Token string `json:"token"`

	// Epoch is the revision of the write that took the key. In that write
	// itself it is 0: see [EpochOf].
	Epoch uint64 `json:"epoch"`
}

// EpochOf returns the epoch of a lease as it is stored: the revision of the
// write that took it. It grows with every holding.
func EpochOf(e Entry[Held]) uint64 {
	if e.Value.Epoch == 0 {
		return e.Revision
	}
	return e.Value.Epoch
}

// LeaseOptions configures a [Lease]. The zero value of a field means its
// default.
type LeaseOptions struct {
	// TTL is how long the lease lives after a renewal, in whole seconds. It is
	// required.
	TTL time.Duration

	// Margin is how long before its end the holder stops. Default TTL/12.
	Margin time.Duration

	// Mine says that the holder's name belongs to this process alone, so what
	// that holder has already, because it was lost or its answer was, is
	// replaced.
	Mine bool

	// Vigil, if it is given, is kept over all tries for one key: what somebody
	// else has under it is replaced once the vigil is over. Default: a key that
	// does not expire is held for ever.
	Vigil *Vigil

	// Logger hears of renewals that fail. Default slog.Default.
	Logger *slog.Logger
}

func (o LeaseOptions) withDefaults() LeaseOptions {
	if o.Margin == 0 {
		o.Margin = o.TTL / 12
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o LeaseOptions) validate() error {
	var errs []error
	if o.TTL < time.Second || o.TTL%time.Second != 0 {
		errs = append(errs, fmt.Errorf("time to live is %v; it must be whole seconds", o.TTL))
	}
	if o.Margin < 0 || o.Margin >= o.TTL {
		errs = append(errs, fmt.Errorf("margin is %v of %v", o.Margin, o.TTL))
	}
	return errors.Join(errs...)
}

// Lease is a claim on a key that ends by itself unless it is renewed. Its
// holder believes in it only up to the time at which others may take it, less a
// margin, by its own monotonic clock. It is safe for concurrent use.
type Lease struct {
	bucket *Bucket[Held]
	key    string
	held   Held // with the epoch filled in
	opts   LeaseOptions
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu struct {
		sync.Mutex
		revision uint64
		renewed  time.Time   // when the last acknowledged renewal was sent
		since    time.Time   // since when it has been renewed without a break
		broken   bool        // the connection broke after the last renewal
		timer    *time.Timer // ends ctx
	}
}

// Take takes the lease of key for holder, in one try: over nothing, over a
// marker, over a value that is Mine, or over one whose Vigil is over. It returns
// [ErrHeld] if somebody else's value is there. A write whose answer is lost is
// settled, for which Take waits as long as ctx allows; should ctx end first, the
// key may be taken until the TTL ends, and [Unknown] recognises the error.
//
// The lease starts when the write was sent. The caller runs [Lease.Keep] and, at
// the end, [Lease.Release].
func Take(ctx context.Context, b *Bucket[Held], key, holder string, opts LeaseOptions) (*Lease, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, b.failed("take", key, err)
	}
	t := &taking{bucket: b, key: key, opts: opts}
	t.held = Held{Holder: holder, Token: uuid.NewString()}
	for race := range maxRaces {
		l, err := t.try(ctx)
		if err == nil && l == nil {
			err = pause(ctx, race)
		}
		switch {
		case err != nil && t.lost != nil:
			return nil, b.failed("take", key, fmt.Errorf("%w, after %w", err, t.lost))
		case err != nil:
			return nil, b.failed("take", key, err)
		case l != nil:
			return l, nil
		}
	}
	return nil, b.failed("take", key, ErrContended)
}

// taking is a lease that is being taken.
type taking struct {
	bucket *Bucket[Held]
	key    string
	held   Held
	opts   LeaseOptions
	began  time.Time // when the first write was sent
	lost   error     // that of a write whose answer did not come
}

// try reads and writes once. It returns neither a lease nor an error if it has
// to be called again.
func (t *taking) try(ctx context.Context) (*Lease, error) {
	read := t.bucket.last
	if t.lost != nil {
		read = t.bucket.reread
	}
	s, err := read(ctx, t.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if err == nil && !s.marker() {
		cur, err := t.bucket.entry(s)
		switch token := cur.Value.Token; {
		case err != nil:
			return nil, err
		case token == t.held.Token:
			return t.lease(ctx, s.sequence, t.began), nil
		case !t.mine(cur.Value) && !t.abandoned(s.sequence):
			t.lost = nil // the revision has moved on: nothing of ours can land any more
			return nil, fmt.Errorf("%w by %s", ErrHeld, cur.Value.Holder)
		}
	}
	sent := time.Now()
	if t.began.IsZero() {
		t.began = sent
	}
	patience, cancel := context.WithTimeout(ctx, t.opts.TTL/3) // or the lease would be old when it is settled
	defer cancel()
	rev, err := t.bucket.put(patience, t.key, t.held, s.sequence, []WriteOptions{{TTL: t.opts.TTL}})
	switch {
	case err == nil:
		return t.lease(ctx, rev, sent), nil
	case errors.Is(err, publish.ErrUnknown):
		t.lost = err
	case !conflict(err) && (t.lost == nil || !errors.Is(err, publish.ErrUnsent)):
		return nil, err
	}
	return nil, nil
}

// mine reports whether this process has the key already.
func (t *taking) mine(cur Held) bool { return t.opts.Mine && cur.Holder == t.held.Holder }

// abandoned reports whether a revision of somebody else may be replaced.
func (t *taking) abandoned(revision uint64) bool {
	return t.opts.Vigil != nil && t.opts.Vigil.Over(revision, t.opts.TTL)
}

// lease returns the lease that revision has, by a write sent at the given time
// or later.
func (t *taking) lease(ctx context.Context, revision uint64, sent time.Time) *Lease {
	l := &Lease{bucket: t.bucket, key: t.key, held: t.held, opts: t.opts}
	l.held.Epoch = revision
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.mu.Lock() // the timer may fire at once
	defer l.mu.Unlock()
	l.mu.revision, l.mu.renewed, l.mu.since = revision, sent, sent
	l.mu.timer = time.AfterFunc(time.Until(l.deadline()), func() { l.Valid() })
	return l
}

// Epoch returns the number of this holding: the revision of the write that
// took the key. It is greater than that of every holding before.
func (l *Lease) Epoch() uint64 { return l.held.Epoch }

// TTL is for how long the lease is taken and renewed.
func (l *Lease) TTL() time.Duration { return l.opts.TTL }

// Token returns the random token of this holding.
func (l *Lease) Token() string { return l.held.Token }

// Context returns a context that ends, with the cause [ErrLeaseLost], when the
// lease is lost or released: at the latest TTL less margin after the last
// acknowledged renewal was sent. Whoever must not act on a lease that ended
// while this process was frozen asks [Lease.Valid].
func (l *Lease) Context() context.Context { return l.ctx }

// Valid reports whether the lease is held now. It looks at the clock, so it is
// right also before the context has noticed.
func (l *Lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.valid()
}

// Unbroken returns for how long the lease has been renewed without a break. A
// break is a renewal that came later than two thirds of the TTL after the one
// before, or a broken connection. It is 0 if the lease is not held now.
func (l *Lease) Unbroken() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.valid() || l.mu.broken || time.Since(l.mu.renewed) > l.pulse() {
		return 0
	}
	return time.Since(l.mu.since)
}

// Release gives the lease up, so that others hear of it at once. It may be
// called for a lease that is lost already: what is stored of it is deleted. The
// context ends first. [Lease.Keep] must have returned.
func (l *Lease) Release(ctx context.Context) error {
	l.lose()
	l.mu.Lock()
	rev := l.mu.revision
	l.mu.Unlock()
	for race := range maxRaces {
		err := l.bucket.Delete(ctx, l.key, rev)
		switch {
		case err == nil:
			return nil
		case !Unknown(err):
			return err
		}
		s, err := l.bucket.reread(ctx, l.key)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return l.bucket.failed("release", l.key, err)
		}
		if !l.owns(s) {
			return nil
		}
		rev = s.sequence
		if err := pause(ctx, race); err != nil {
			return l.bucket.failed("release", l.key, err)
		}
	}
	return l.bucket.failed("release", l.key, ErrContended)
}

// owns reports whether s is a value of this holding.
func (l *Lease) owns(s stored) bool {
	if s.marker() {
		return false
	}
	e, err := l.bucket.entry(s)
	return err == nil && e.Value.Token == l.held.Token
}

// lose ends the lease.
func (l *Lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// end ends the lease. The caller holds the lock.
func (l *Lease) end() {
	l.mu.timer.Stop()
	l.cancel(ErrLeaseLost)
}

// valid ends the lease if its time is over, and reports whether it is held. The
// caller holds the lock.
func (l *Lease) valid() bool {
	if l.ctx.Err() == nil && !time.Now().Before(l.deadline()) {
		l.end()
	}
	return l.ctx.Err() == nil
}

func (l *Lease) deadline() time.Time { return l.mu.renewed.Add(l.opts.TTL - l.opts.Margin) }

// pulse is the longest time between two renewals that is no break.
func (l *Lease) pulse() time.Duration { return l.opts.TTL * 2 / 3 }
