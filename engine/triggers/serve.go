package triggers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Serve runs the triggers that are stored, as they change, until ctx ends.
func (t *Triggers) Serve(ctx context.Context) error {
	s := &storedTriggers{Triggers: t, running: map[string]*runner{}}
	var g errgroup.Group
	s.start = func(f func() error) { g.Go(f) }
	watching, stop := context.WithCancel(ctx)
	defer stop()
	err := t.definitions().Watch(watching, definitionKey("*"), func(ev kv.Event[stored]) { s.hear(watching, ev) })
	stop()
	return errors.Join(err, g.Wait())
}

// storedTriggers are the stored triggers that run here, by name.
type storedTriggers struct {
	*Triggers
	running map[string]*runner
	start   func(func() error)
}

// runner is a trigger that runs.
type runner struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// hear takes note of a change of a stored trigger. One goroutine calls it.
func (s *storedTriggers) hear(ctx context.Context, ev kv.Event[stored]) {
	trigger := strings.TrimPrefix(ev.Entry.Key, definitionKey(""))
	switch ev.Kind {
	case kv.Put:
		s.put(ctx, trigger, ev.Entry)
	case kv.Deleted:
		s.stop(trigger)
		s.start(func() error { s.tidy(ctx, trigger); return nil })
	case kv.Listed:
		s.start(func() error { s.tidyAll(ctx); return nil })
	}
}

// put runs a trigger as it is defined now. It begins when the runner that had
// the definition before has ended.
func (s *storedTriggers) put(ctx context.Context, trigger string, entry kv.Entry[stored]) {
	before := s.stop(trigger)
	var r Rule
	err := usable(entry)
	if err == nil {
		r, err = storedRule(entry.Value.Trigger, entry.Revision)
	}
	if err != nil {
		s.log.ErrorContext(ctx, "stored trigger cannot be used", "trigger", trigger, "err", err)
		return
	}
	running, stop := context.WithCancel(ctx)
	now := &runner{stop: stop, ended: make(chan struct{})}
	s.running[trigger] = now
	s.start(func() error {
		defer close(now.ended)
		defer stop()
		if before != nil {
			<-before.ended
		}
		return s.Run(running, r)
	})
}

// stop tells the runner of a trigger to end, and returns it, or nil.
func (s *storedTriggers) stop(trigger string) *runner {
	r := s.running[trigger]
	if r != nil {
		r.stop()
		delete(s.running, trigger)
	}
	return r
}

// tidyAll ends what is left of triggers whose deletion was interrupted, or was
// not made by [Triggers.Delete].
func (s *storedTriggers) tidyAll(ctx context.Context) {
	cursors, err := s.cursors().ListStale(ctx, cursorKey("*"))
	if err != nil {
		s.log.DebugContext(ctx, "triggers are not looked through", "err", err)
	}
	for _, c := range cursors {
		if !c.Value.Go {
			s.tidy(ctx, strings.TrimPrefix(c.Key, cursorKey("")))
		}
	}
}

// tidy ends what is left of a stored trigger that is stored no more.
func (s *storedTriggers) tidy(ctx context.Context, trigger string) {
	if !s.deserted(ctx, trigger) {
		return
	}
	err := s.underBootstrap(ctx, func(ctx context.Context) error {
		if !s.deserted(ctx, trigger) {
			return nil
		}
		_, err := s.forget(ctx, trigger)
		return err
	})
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "deleted trigger leaves something behind", "trigger", trigger, "err", err)
	}
}

// deserted reports whether a stored trigger is stored no more and has a cursor.
func (s *storedTriggers) deserted(ctx context.Context, trigger string) bool {
	_, err := s.definitions().Get(ctx, definitionKey(trigger))
	if !errors.Is(err, kv.ErrNotFound) {
		return false
	}
	c, err := s.cursors().Get(ctx, cursorKey(trigger))
	return err == nil && !c.Value.Go
}

const (
	// serveLook is how often a worker looks whether a node serves.
	serveLook = 5 * time.Second
	// serveLookPerNode makes that rarer where there are many nodes.
	serveLookPerNode = 50 * time.Millisecond
)

// StandIn runs the stored triggers while no node serves, until ctx ends. Of those
// who call it one does so at a time.
func (t *Triggers) StandIn(ctx context.Context) error {
	select {
	case t.standingIn <- struct{}{}:
		defer func() { <-t.standingIn }()
	case <-ctx.Done():
		return nil
	}
	var g errgroup.Group
	var stop context.CancelFunc // nil while the triggers do not run here
	for ctx.Err() == nil {
		needed, look := t.needed(ctx, stop != nil)
		switch {
		case needed && stop == nil:
			var running context.Context
			running, stop = context.WithCancel(ctx)
			g.Go(func() error { return t.Serve(running) })
		case !needed && stop != nil:
			stop()
			stop = nil
			_ = g.Wait() // says only that the connection is closed
		}
		wait.For(ctx, look)
	}
	if stop != nil {
		stop()
	}
	return g.Wait()
}

// needed reports whether there are stored triggers and no node serves, and when
// to look again. If it cannot be found out now all stays as it is.
func (t *Triggers) needed(ctx context.Context, now bool) (bool, time.Duration) {
	any, err := t.anyStored(ctx)
	if err != nil || !any {
		return now && err != nil, serveLook
	}
	members, err := nodes.List(ctx, t.pub, t.ns)
	if err != nil {
		return now, serveLook
	}
	serves := slices.ContainsFunc(members, func(m nodes.Member) bool {
		return m.Role == nodes.RoleServe && m.State != nodes.Offline
	})
	return !serves, max(serveLook, time.Duration(len(members))*serveLookPerNode)
}

// anyStored reports whether there are stored triggers, without reading them.
func (t *Triggers) anyStored(ctx context.Context) (bool, error) {
	unread := kv.Codec[struct{}]{Decode: func(nats.Header, []byte) (struct{}, error) { return struct{}{}, nil }}
	list, err := kv.Open(t.pub, t.ns.Bucket(streams.Config), unread).ListStale(ctx, definitionKey("*"))
	return len(list) > 0, err
}
