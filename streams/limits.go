package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/publish"
)

// ErrFull is returned by [Limits.Check] when there is no room for more jobs.
var ErrFull = errors.New("streams: storage is nearly full")

// NoRoom adds [ErrFull] to what a server says that refuses a message for want of
// room, and returns any other error as it is. Limits knows those of the account and
// of the streams, and not how much the servers themselves have left.
func NoRoom(err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) || !slices.Contains(roomless, api.ErrorCode) || errors.Is(err, ErrFull) {
		return err
	}
	return fmt.Errorf("%w: the server says %q: raise max_file_store of the servers or the limit of the account, or delete jobs (%w)", ErrFull, api.Description, err)
}

// roomless are the codes of a server that has no room: insufficient resources;
// storage, or memory, of the account is used up.
var roomless = []jetstream.ErrorCode{10023, 10047, 10028}

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
// the streams of jobs, work, mail, timers and blobs. It does not know what the server
// has for all its accounts (max_file_store) and the size of its disk, which the
// server tells to its system account only: give the account, or the streams, a
// limit below.
//
// It also knows how many records there are of jobs that have ended, see
// [Limits.Shrink].
type Limits struct {
	ns   Namespace
	pub  *publish.Publisher
	opts LimitsOptions
	last atomic.Pointer[level] // nil until measured
	turn *semaphore.Weighted   // held by whoever measures for all

	ended    atomic.Pointer[ended] // nil until counted
	counting sync.Mutex            // held by whoever counts for all
}

// LimitsOptions configures [Limits]. The zero value of a field means its default.
type LimitsOptions struct {
	// MostEnded is how many records of jobs that have ended are kept for as long
	// as they should be. Default [MostEnded].
	MostEnded uint64
}

// level is how full the fullest of all limits was.
type level struct {
	measured time.Time
	percent  float64
	err      error // wraps ErrFull; nil while there is room
}

// NewLimits returns the limits of a namespace.
func NewLimits(ns Namespace, pub *publish.Publisher, opts ...LimitsOptions) *Limits {
	l := &Limits{ns: ns, pub: pub, turn: semaphore.NewWeighted(1)}
	if len(opts) > 0 {
		l.opts = opts[0]
	}
	if l.opts.MostEnded == 0 {
		l.opts.MostEnded = MostEnded
	}
	return l
}

// Check returns an error that wraps [ErrFull] if some limit is nearly reached. It
// costs nothing as a rule: the first caller of each second measures, or of each
// tenth of a second once a limit comes near, and all others go by what it found.
// While the server does not answer, what was found last counts.
func (l *Limits) Check(ctx context.Context) error {
	last := l.last.Load()
	switch {
	case last == nil:
		if l.turn.Acquire(ctx, 1) != nil {
			return nil // nobody knows
		}
	case last.fresh() || !l.turn.TryAcquire(1):
		return last.err
	}
	defer l.turn.Release(1)
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

// Use is how much of a limit is used.
type Use struct {
	Holder  string // whose limit it is, such as "stream mr_default_work"
	Used    uint64
	Limit   int64
	Unit    string // bytes or messages
	Setting string // the name of the limit in the configuration of its holder
}

// Percent returns how many percent of the limit are used.
func (u Use) Percent() float64 { return 100 * float64(u.Used) / float64(u.Limit) }

// String says whose limit is used how much.
func (u Use) String() string {
	return fmt.Sprintf("%s holds %d of %d %s", u.Holder, u.Used, u.Limit, u.Unit)
}

// measure finds the limit that is nearest.
func (l *Limits) measure(ctx context.Context) (level, error) {
	uses, err := l.Uses(ctx)
	var v level
	for _, u := range uses {
		if u.Percent() <= v.percent {
			continue
		}
		v.percent = u.Percent()
		if v.percent >= fullAt {
			v.err = fmt.Errorf("%w: %v, and takes new jobs below %d%% only: raise its %s limit, or delete jobs", ErrFull, u, fullAt, u.Setting)
		}
	}
	return v, err
}

// Uses asks how much is used of every limit that there is.
func (l *Limits) Uses(ctx context.Context) ([]Use, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var uses []Use
	add := func(holder, unit, setting string, used uint64, limit int64) {
		if limit > 0 { // otherwise it is none
			uses = append(uses, Use{Holder: holder, Used: used, Limit: limit, Unit: unit, Setting: setting})
		}
	}
	driven, err := l.driven(ctx)
	if err != nil {
		return nil, err
	}
	replicas := 1
	for _, stream := range driven {
		replicas = stream.Config.Replicas
		add("stream "+stream.Config.Name, "bytes", "max_bytes", stream.State.Bytes, stream.Config.MaxBytes)
		add("stream "+stream.Config.Name, "messages", "max_msgs", stream.State.Msgs, stream.Config.MaxMsgs)
	}
	var account struct {
		publish.Refusal
		jetstream.AccountInfo
	}
	if err := l.pub.Ask(ctx, "INFO", nil, &account); err != nil {
		return nil, err
	}
	add("the account", "bytes", "storage", account.Store, account.Limits.MaxStore)
	// Where an account has limits by replicas, they are for one replica, and
	// what is used is that of all.
	if tier, ok := account.Tiers["R"+strconv.Itoa(replicas)]; ok {
		add(fmt.Sprintf("the account, with %d replicas,", replicas), "bytes", "storage", tier.Store, tier.Limits.MaxStore*int64(replicas))
	}
	return uses, nil
}

// driven asks for the streams that jobs need to go on: the records, the items, the
// timers, and what is too large for a record. It notes how many have ended.
func (l *Limits) driven(ctx context.Context) ([]jetstream.StreamInfo, error) {
	var list []jetstream.StreamInfo
	for _, name := range []string{l.ns.bucketStream(Jobs), l.ns.WorkStream(), l.ns.MailStream(), l.ns.TimerStream(), l.ns.BlobStream()} {
		var stream struct {
			publish.Refusal
			jetstream.StreamInfo
		}
		if err := l.pub.Ask(ctx, "STREAM.INFO."+name, nil, &stream); err != nil {
			return nil, err
		}
		list = append(list, stream.StreamInfo)
	}
	l.count(list[0].State.Msgs, list[1].State.Msgs+list[2].State.Msgs+list[3].State.Msgs)
	return list, nil
}
