package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

// ErrFull is returned by [Limits.Check] when there is no room for more jobs.
var ErrFull = errors.New("streams: storage is nearly full")

const (
	// fullAt is how many percent of a limit refuse jobs. The rest is for what
	// the jobs that are there still have to write.
	fullAt = 90
	// closeAt is how many percent of a limit make it be measured more often.
	closeAt = 70

	limitsAge      = time.Second
	closeLimitsAge = 100 * time.Millisecond
)

// Limits knows whether storage is nearly full, so that jobs can be refused while
// those that are there can still end. It is safe for concurrent use and holds no
// resources of its own.
//
// It knows the storage limit of the account, and what an administrator allows
// the streams of jobs, work and timers. It does not know what the server has for
// all its accounts (max_file_store) and the size of its disk, which the server
// tells to its system account only: give the account, or the streams, a limit
// below.
type Limits struct {
	ns   Namespace
	pub  *publish.Publisher
	last atomic.Pointer[level] // nil until measured
	turn sync.Mutex            // held by whoever measures for all
}

// level is how full the fullest of all limits was.
type level struct {
	measured time.Time
	percent  float64
	err      error // wraps ErrFull; nil while there is room
}

// NewLimits returns the limits of a namespace.
func NewLimits(ns Namespace, pub *publish.Publisher) *Limits {
	return &Limits{ns: ns, pub: pub}
}

// Check returns an error that wraps [ErrFull] if some limit is nearly reached. It
// costs nothing as a rule: the first caller of each second measures, or of each
// tenth of a second once a limit comes near, and all others go by what it found.
// While the server does not answer, what was found last counts.
func (l *Limits) Check(ctx context.Context) error {
	last := l.last.Load()
	switch {
	case last == nil:
		l.turn.Lock()
	case last.fresh() || !l.turn.TryLock():
		return last.err
	}
	defer l.turn.Unlock()
	if last = l.last.Load(); last != nil && last.fresh() {
		return last.err
	}
	now, err := l.measure(ctx)
	if err != nil {
		now = level{}
		if last != nil {
			now = *last
		}
	}
	now.measured = time.Now()
	l.last.Store(&now)
	return now.err
}

// fresh reports whether v still counts.
func (v *level) fresh() bool {
	age := limitsAge
	if v.percent > closeAt {
		age = closeLimitsAge
	}
	return time.Since(v.measured) < age
}

// measure finds the limit that is nearest.
func (l *Limits) measure(ctx context.Context) (level, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var v level
	replicas := 1
	for _, name := range []string{l.ns.bucketStream(Jobs), l.ns.WorkStream(), l.ns.TimerStream()} {
		var stream struct {
			refusal
			jetstream.StreamInfo
		}
		if err := ask(ctx, l.pub, "STREAM.INFO."+name, nil, &stream); err != nil {
			return level{}, err
		}
		replicas = stream.Config.Replicas
		v.add("stream "+name, "bytes", "max_bytes", stream.State.Bytes, stream.Config.MaxBytes)
		v.add("stream "+name, "messages", "max_msgs", stream.State.Msgs, stream.Config.MaxMsgs)
	}
	var account struct {
		refusal
		jetstream.AccountInfo
	}
	if err := ask(ctx, l.pub, "INFO", nil, &account); err != nil {
		return level{}, err
	}
	v.add("the account", "bytes", "storage", account.Store, account.Limits.MaxStore)
	// Where an account has limits by replicas, they are for one replica, and
	// what is used is that of all.
	if tier, ok := account.Tiers["R"+strconv.Itoa(replicas)]; ok {
		v.add(fmt.Sprintf("the account, with %d replicas,", replicas), "bytes", "storage", tier.Store, tier.Limits.MaxStore*int64(replicas))
	}
	return v, nil
}

// add notes how much of a limit is used. A limit that is not positive is none.
func (v *level) add(holder, unit, setting string, used uint64, limit int64) {
	if limit <= 0 {
		return
	}
	percent := 100 * float64(used) / float64(limit)
	if percent <= v.percent {
		return
	}
	v.percent = percent
	if percent >= fullAt {
		v.err = fmt.Errorf("%w: %s holds %d of %d %s, and takes new jobs below %d%% only: raise its %s limit, or delete jobs",
			ErrFull, holder, used, limit, unit, fullAt, setting)
	}
}
