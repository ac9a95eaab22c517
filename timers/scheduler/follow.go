package scheduler

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// How the owner comes to know of schedules. Changes of definitions it hears at once,
// from the server. What that misses it finds by reading what has changed: at
// reconnects, and every 30 s. At the takeover it reads all definitions and cursors,
// but nothing of them except the headers: these say when a schedule that rests is to
// be looked at again. What it reads may be of any replica, since all this is only a
// reason to look: whoever tends a schedule reads the leader.

const (
	// heardAtOnce is how many changes may wait to be noted. What is more is lost,
	// and read within 30 s.
	heardAtOnce = 1024
	// readAgain is the pause after a reading that failed.
	readAgain = 250 * time.Millisecond
	// soon is when changes are read once more after a reconnect: in a cluster the
	// server that tells of them may learn of the listener late.
	soon = time.Second
	// forgetful is how often everything is read: half as long as the markers of
	// deleted keys stay.
	forgetful = 30 * time.Minute
)

// rereadEvery is how often changes are read without a reason. Tests of years change it.
var rereadEvery = 30 * time.Second

// telling is what the server tells of definitions.
type telling struct {
	messages <-chan *nats.Msg
	stop     func()
}

func (s *Scheduler) subscribe() (telling, error) {
	messages := make(chan *nats.Msg, heardAtOnce)
	sub, err := s.pub.Conn().ChanSubscribe(s.opts.Namespace.ConfigFeed()+allKeys, messages)
	return telling{messages, func() { _ = sub.Unsubscribe() }}, err // fails only on a closed connection
}

// follow reads what is stored, and then what changes, until ctx ends.
func (s *Scheduler) follow(ctx context.Context, told <-chan *nats.Msg) {
	connected := s.pub.Conn().StatusChanged(nats.CONNECTED)
	defer s.pub.Conn().RemoveStatusListener(connected)
	r := &reading{Scheduler: s, heads: openHeads(s.pub, s.opts.Namespace, streams.Config), cursors: openHeads(s.pub, s.opts.Namespace, streams.Cursor)}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-told:
			s.told(msg)
			continue
		case <-connected:
			again.Reset(soon)
		case <-again.C:
			again.Reset(rereadEvery)
		}
		if err := r.read(ctx); err != nil {
			s.opts.Logger.DebugContext(ctx, "schedules are read again", "err", err)
			again.Reset(readAgain)
		}
	}
}

// told notes a change that the server tells of.
func (s *Scheduler) told(msg *nats.Msg) {
	key := msg.Subject[len(s.opts.Namespace.ConfigFeed()):]
	if revision, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64); err == nil {
		s.changed(nameOf(key), revision)
	}
}

// changed notes that the definition of a schedule is at a revision, be it a marker.
func (s *Scheduler) changed(schedule string, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.course(schedule)
	if revision > c.revision {
		c.revision = revision
		c.hear().changed = true
		s.rouse(c)
	}
}

// reading is how far the definitions were read.
type reading struct {
	*Scheduler
	heads, cursors *kv.Bucket[head]

	upTo uint64    // the last change
	all  time.Time // when everything was read; zero: never
}

// read reads what has changed since the last time, or everything.
func (r *reading) read(ctx context.Context) error {
	if !r.all.IsZero() && time.Since(r.all) < forgetful {
		return r.readChanges(ctx)
	}
	began := time.Now()
	if err := r.opts.Clock.Fresh(ctx); err != nil { // before it nothing is to be early
		return err
	}
	if err := r.readAll(ctx, r.all.IsZero()); err != nil {
		return err
	}
	r.all = began
	return r.readChanges(ctx)
}

// readChanges reads what has changed since the last time.
func (r *reading) readChanges(ctx context.Context) error {
	return r.heads.EachStale(ctx, allKeys, r.upTo+1, func(e kv.Event[head]) {
		r.upTo = max(r.upTo, e.Entry.Revision)
		r.changed(nameOf(e.Entry.Key), e.Entry.Revision)
	})
}

// readAll reads the headers of all definitions, and the first time those of all
// cursors. A schedule that rests waits until its cursor says; one of which more is to
// be known is tended now, and so is what only one of both speaks of. What changes
// meanwhile is read afterwards.
func (r *reading) readAll(ctx context.Context, takeover bool) error {
	found := map[string]uint64{}
	upTo, err := r.heads.Headers(ctx, allKeys, func(h kv.Head) error {
		found[nameOf(h.Key)] = h.Revision
		return nil
	})
	resting := map[string]int64{} // when they are due
	var alone []string            // cursors without a definition
	if err == nil && takeover {
		_, err = r.cursors.Headers(ctx, allKeys, func(h kv.Head) error {
			schedule, says := nameOf(h.Key), readHead(h.Header)
			switch revision := found[schedule]; {
			case revision == 0:
				alone = append(alone, schedule)
			case says.due != 0 && says.revision == revision:
				resting[schedule] = says.due
			}
			return nil
		})
	}
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	r.upTo = upTo
	for schedule, revision := range found {
		r.met(schedule, revision, resting[schedule])
	}
	for _, schedule := range alone {
		r.changed(schedule, 1)
	}
	if !takeover {
		r.missing(found, upTo)
	}
	return nil
}

// met notes a definition that was read, and that its schedule rests until due, in ms
// since 1970, unless that is 0.
func (s *Scheduler) met(schedule string, revision uint64, due int64) {
	if due == 0 {
		s.changed(schedule, revision)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.course(schedule); revision > c.revision {
		c.revision = revision
		if !c.busy && due != never {
			s.mu.waiting.set(c, s.ahead(c, due))
			s.nudge()
		}
	}
}

// missing has those schedules tended whose definitions are not there any more.
func (s *Scheduler) missing(found map[string]uint64, upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for schedule, c := range s.mu.courses {
		if found[schedule] == 0 && c.revision <= upTo {
			c.hear().changed = true
			s.rouse(c)
		}
	}
}
