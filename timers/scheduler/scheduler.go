package scheduler

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Options configures a [Scheduler]. The zero value of a field means its default.
type Options struct {
	// Namespace is whose schedules tick. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// Owner is the lease under which the scheduler works, as timers.Stand gives it.
	// It is required.
	Owner *kv.Lease

	// Clock tells when it is time. It is required.
	Clock *streams.Clock

	// Store makes jobs, rules on them, and reads them. It is required.
	Store *store.Store

	// Logger hears of what failed. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Owner == nil {
		errs = append(errs, errors.New("owner is required"))
	}
	if o.Clock == nil {
		errs = append(errs, errors.New("clock is required"))
	}
	if o.Store == nil {
		errs = append(errs, errors.New("store is required"))
	}
	return errors.Join(errs...)
}

const (
	// atOnce bounds how many schedules are tended at the same time.
	atOnce = 128
	// maxSleep bounds the sleep before the next tick: the clock is measured again
	// now and then, and two clocks drift apart by less than a millisecond meanwhile.
	maxSleep = 10 * time.Second
	// warnEvery bounds how often the log says that something failed.
	warnEvery = time.Minute
)

// Scheduler makes jobs when it is time for them. Make one with [New].
type Scheduler struct {
	opts        Options
	pub         *publish.Publisher
	definitions *Definitions
	cursors     *kv.Bucket[written]
	wake        chan struct{} // has one element if somebody is to be tended, or earlier than before

	mu struct {
		sync.Mutex
		courses map[string]*course // by schedule
		waiting byDue
		ready   byLast // those that are to be tended now
		awake   int    // those of which everything is in memory
		warned  time.Time
	}
}

// New returns a scheduler that does nothing before [Scheduler.Run].
func New(pub *publish.Publisher, o Options) *Scheduler {
	s := &Scheduler{opts: o.withDefaults(), pub: pub, wake: make(chan struct{}, 1)}
	s.definitions = OpenDefinitions(pub, s.opts.Namespace, s.opts.Logger)
	s.cursors = kv.Open(pub, s.opts.Namespace.Bucket(streams.Cursor), writtenCodec)
	s.mu.courses = make(map[string]*course)
	return s
}

// Run lets schedules tick until ctx or the owner's lease ends, waits for what it has
// begun, and returns nil. Errors of NATS do not end it.
func (s *Scheduler) Run(ctx context.Context) error {
	if err := s.opts.validate(); err != nil {
		return fmt.Errorf("scheduler: let schedules tick: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.opts.Owner.Context(), cancel)()
	deaf, err := s.listen()
	if err != nil {
		return fmt.Errorf("scheduler: listen to the jobs of schedules: %w", err)
	}
	defer deaf()
	told, err := s.subscribe()
	if err != nil {
		return fmt.Errorf("scheduler: listen to definitions: %w", err)
	}
	defer told.stop()
	loops, ctx := errgroup.WithContext(ctx)
	loops.Go(func() error { s.follow(ctx, told.messages); return nil })
	loops.Go(func() error { s.tendAll(ctx); return nil })
	return loops.Wait()
}

// tendAll tends each schedule when it is time, until ctx ends, and waits for what it
// has begun.
func (s *Scheduler) tendAll(ctx context.Context) {
	connected := s.pub.Conn().StatusChanged(nats.CONNECTED)
	defer s.pub.Conn().RemoveStatusListener(connected)
	var tending errgroup.Group
	tending.SetLimit(atOnce)
	defer func() { _ = tending.Wait() }() // it returns no error
	alarm := wait.NewAlarm()
	defer alarm.Stop()
	for {
		alarm.Set(s.remind())
		select {
		case <-ctx.Done():
			return
		case <-connected:
			s.doubt()
		case <-s.wake:
		case <-alarm.C:
			alarm.Nap()
		}
		for ctx.Err() == nil && s.mayTick() {
			s.remind()
			c := s.takeReady()
			if c == nil {
				break
			}
			tending.Go(func() error { s.tend(ctx, c); return nil })
			select {
			case <-connected:
				s.doubt()
			default:
			}
		}
	}
}

// mayTick reports whether this process is the owner now, by the clock and not by what
// it was told, and NATS is there.
func (s *Scheduler) mayTick() bool { return s.opts.Owner.Valid() && s.pub.Conn().IsConnected() }

// remind has those schedules tended that it is time for, and returns how long there
// is to sleep.
func (s *Scheduler) remind() time.Duration {
	now := s.opts.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mu.waiting) > 0 {
		c := s.mu.waiting[0]
		if wait := time.UnixMilli(c.due).Sub(now); wait > 0 {
			return min(wait, maxSleep)
		}
		last := c.due + c.slack
		s.mu.waiting.set(c, 0)
		s.rouseBy(c, last)
	}
	return maxSleep
}

// takeReady returns the schedule that is to be tended first, or nil.
func (s *Scheduler) takeReady() *course {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.ready) == 0 {
		return nil
	}
	return heap.Pop(&s.mu.ready).(*course)
}

// rouse has a schedule tended now, or once more if it is just now. The caller holds
// the lock.
func (s *Scheduler) rouse(c *course) { s.rouseBy(c, s.opts.Clock.Now().UnixMilli()) }

// rouseBy is rouse for one that has time until a moment, in ms since 1970: those that have
// less go first.
func (s *Scheduler) rouseBy(c *course, last int64) {
	if c.busy {
		c.again = true
		return
	}
	c.busy, c.last = true, last
	heap.Push(&s.mu.ready, c)
	s.nudge()
}

// nudge wakes who sleeps until the next schedule is due.
func (s *Scheduler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// course returns that of a schedule, which may be new. The caller holds the lock.
func (s *Scheduler) course(schedule string) *course {
	c := s.mu.courses[schedule]
	if c == nil {
		c = &course{name: schedule}
		s.mu.courses[schedule] = c
	}
	return c
}

// doubt has all schedules look that wait for the ends of jobs: while the connection
// was away something may have ended that was not heard of.
func (s *Scheduler) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.mu.courses {
		if c.watches {
			c.hear().missed = true
			s.rouse(c)
		}
	}
}

// warn logs that a schedule could not be tended.
func (s *Scheduler) warn(ctx context.Context, schedule string, err error) {
	s.mu.Lock()
	now := time.Now()
	often := now.Sub(s.mu.warned) < warnEvery
	if !often {
		s.mu.warned = now
	}
	s.mu.Unlock()
	level := slog.LevelWarn
	if often || ctx.Err() != nil || errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrLeaseLost) || publish.Passing(err) {
		level = slog.LevelDebug
	}
	s.opts.Logger.Log(ctx, level, "schedule is tended again soon", "schedule", schedule, "err", err)
}
