package timers

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/streams"
)

// How the owner comes to know the timers. Those that are stored from its takeover
// on it hears at once, by one live consumer. Of those stored before, the minutes
// around now come first, since they may be due, and then the rest, in the
// background. So no timer depends on the minute that it was filed under.
//
// It does not hear of timers that are cancelled or replaced. They wait like all
// others, and are found to be gone when they would be due.

const (
	// batch is how many timers are read at a time.
	batch = 5000
	// weighEvery is how often what waits is compared with what is stored.
	weighEvery = time.Minute
)

// slack is how many entries may wait without a timer, beyond as many as there
// are timers: 16 MB. Tests change it.
var slack = 1 << 20

// errBloated says that most of what waits is gone.
var errBloated = errors.New("most timers that wait are gone")

// load reads the timers until ctx ends. If most of what waits has been cancelled
// or replaced it forgets everything and begins again.
func (f *firing) load(ctx context.Context) error {
	for {
		messages, last, ok := f.begin(ctx)
		if !ok {
			return nil
		}
		loops, looping := errgroup.WithContext(ctx)
		loops.Go(func() error { return f.read(looping, follow.Options{From: last + 1}, nil) })
		if messages > 0 {
			loops.Go(func() error { return f.readStored(looping, last) })
		}
		loops.Go(func() error { return f.weigh(looping) })
		err := loops.Wait()
		if !errors.Is(err, errBloated) {
			return err
		}
		f.forget()
	}
}

// begin measures the server's time, by which nothing may be early, and returns
// how many timers there are and the sequence of the last. It tries until it can,
// and is not ok if ctx ends before.
func (f *firing) begin(ctx context.Context) (messages, last uint64, ok bool) {
	for failures := 0; ctx.Err() == nil; {
		err := f.opts.Clock.Fresh(ctx)
		if err == nil {
			messages, last, err = f.timers.Count(ctx)
		}
		if err == nil {
			return messages, last, true
		}
		if failures++; failures == 1 && ctx.Err() == nil {
			f.opts.Logger.WarnContext(ctx, "timers not read yet", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	return 0, 0, false
}

// readStored reads what is stored up to a sequence: first the minutes around
// now, then all others.
func (f *firing) readStored(ctx context.Context, last uint64) error {
	now := f.opts.Clock.Now().Unix() / 60
	var near []string
	for minute := now - 1; minute <= now+2; minute++ {
		near = append(near, f.opts.Namespace.TimerMinute(minute))
	}
	if err := f.read(ctx, follow.Options{Until: last, Filters: near}, nil); err != nil {
		return err
	}
	err := f.read(ctx, follow.Options{Until: last}, near)
	if err == nil && ctx.Err() == nil {
		f.opts.Logger.DebugContext(ctx, "timers read", "waiting", f.waiting())
	}
	return err
}

// read lets every timer wait that it reads, but for those of some minutes.
func (f *firing) read(ctx context.Context, opts follow.Options, except []string) error {
	opts.Stream, opts.Headers, opts.Batch = f.opts.Namespace.TimerStream(), true, batch
	opts.Logger, opts.Beat = f.opts.Logger, f.opts.Owner.TTL()/3
	prefixes := make([]string, len(except))
	for i, filter := range except {
		prefixes[i] = strings.TrimSuffix(filter, ">")
	}
	return follow.Run(ctx, f.pub, opts, func(msg follow.Message) error {
		for _, prefix := range prefixes {
			if strings.HasPrefix(msg.Subject, prefix) {
				return nil
			}
		}
		f.note(ctx, msg)
		return nil
	})
}

// note lets a stored timer wait. One that does not say when it is due comes from
// a newer build, which may be the owner soon.
func (f *firing) note(ctx context.Context, msg follow.Message) {
	if at, ok := streams.TimerAt(msg.Header); ok {
		f.push(entry{at.UnixMilli(), msg.Sequence})
		return
	}
	f.mu.Lock()
	known := f.mu.strange
	f.mu.strange = true
	f.mu.Unlock()
	if !known {
		f.opts.Logger.WarnContext(ctx, "timers without a due time are left alone: upgrade this process",
			"subject", msg.Subject, "sequence", msg.Sequence)
	}
}

// weigh watches that what waits is not much more than what is stored. It returns
// errBloated when it is.
func (f *firing) weigh(ctx context.Context) error {
	every := time.NewTicker(weighEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		if f.waiting() <= slack {
			continue
		}
		messages, _, err := f.timers.Count(ctx)
		if err == nil && f.waiting() > 2*int(messages)+slack {
			return errBloated
		}
	}
}
