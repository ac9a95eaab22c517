package triggers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
)

const (
	// eventWindow is how many events of a trigger a runner has in hand. A large
	// one counts for several: see weight.
	eventWindow = 1024
	// eventPull is how many events it asks for beyond those, up to so many bytes.
	eventPull, eventPullBytes = 512, 24 << 20
	// eventPullExpiry is how long the server keeps such a request.
	eventPullExpiry = 30 * time.Second
	// eventHeartbeat is how often the server says that it still has it.
	eventHeartbeat = 5 * time.Second
	// saveEvery is how often a runner writes down how far its trigger got. After
	// the loss of the consumer, what came since is looked at once more.
	saveEvery = 5 * time.Second
	// lookEvery is how often a runner makes sure that its trigger is in place.
	lookEvery = 30 * time.Second
	// placePause is the pause after a trigger could not be put in place.
	placePause = time.Second
	// yieldPause is how often a runner whose trigger's name is another's looks
	// whether it still is.
	yieldPause = 5 * time.Second
)

// Prepare puts the triggers of a worker in place before it runs, and says what is
// wrong with them.
func (t *Triggers) Prepare(ctx context.Context, rules []Rule) error {
	var errs []error
	for _, r := range rules {
		if _, err := t.place(ctx, r, false); err != nil {
			errs = append(errs, fmt.Errorf("engine: trigger %s: %w", r.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Run handles the events of a trigger until ctx ends. Whatever becomes
// of the server, the stream and the consumer, it goes on when it can.
func (t *Triggers) Run(ctx context.Context, r Rule) error {
	log := t.log.With("trigger", r.Name)
	said := "" // a problem that lasts is logged once
	placed := r.stored == 0
	for ctx.Err() == nil {
		if t.pub.Conn().IsClosed() {
			return fmt.Errorf("engine: trigger %s: %w", r.Name, nats.ErrConnectionClosed)
		}
		p, err := t.place(ctx, r, placed)
		if err == nil {
			placed, said = true, ""
			log.DebugContext(ctx, "trigger runs", "stream", p.stream)
			err = t.follow(ctx, r, p)
			log.DebugContext(ctx, "trigger is interrupted", "err", err)
			wait.For(ctx, retryPause)
			continue
		}
		if ctx.Err() == nil && said != err.Error() {
			said = err.Error()
			log.WarnContext(ctx, "trigger cannot run", "err", err)
		}
		if errors.Is(err, errSuperseded) || errors.Is(err, errOutdated) || errors.Is(err, errInGo) {
			wait.For(ctx, yieldPause)
		} else {
			wait.For(ctx, placePause)
		}
	}
	return nil
}

// following is one consumer's events on their way to becoming jobs. Whatever
// goes wrong with the consumer ends it, and the next one goes on.
type following struct {
	*Triggers
	ctx    context.Context // of the runner: when it ends, events are handed back
	rule   Rule
	place  place
	broken chan error          // why it ends
	window *semaphore.Weighted // of events in hand
	open   sync.WaitGroup
	moved  atomic.Bool // an event was taken since the position was written down
	since  time.Time   // when the consumer was made
}

// follow handles events until something goes wrong, and says what.
func (t *Triggers) follow(ctx context.Context, r Rule, p place) error {
	f := &following{
		Triggers: t, ctx: ctx, rule: r, place: p, since: p.consumer.CachedInfo().Created,
		broken: make(chan error, 1), window: semaphore.NewWeighted(eventWindow),
	}
	nc := t.pub.Conn()
	status := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	consuming, err := p.consumer.Consume(f.take,
		jetstream.PullMaxMessagesWithBytesLimit(eventPull, max(eventPullBytes, 2*int(nc.MaxPayload()))),
		jetstream.PullExpiry(eventPullExpiry),
		jetstream.PullHeartbeat(eventHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { f.fail(err) }),
	)
	if err != nil {
		return err
	}
	err = f.watch(status)
	if nc.IsConnected() {
		consuming.Drain() // what is here already is handled, or handed back
	} else {
		consuming.Stop()
	}
	<-consuming.Closed()
	f.open.Wait()
	f.save(context.WithoutCancel(ctx))
	return err
}

// watch waits for the end, and writes down now and then how far the trigger got.
func (f *following) watch(status <-chan nats.Status) error {
	save, look := time.NewTicker(saveEvery), time.NewTicker(lookEvery)
	defer save.Stop()
	defer look.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return nil
		case <-status:
			return errors.New("the connection was re-established")
		case err := <-f.broken:
			return err
		case <-save.C:
			f.save(f.ctx)
		case <-look.C:
			p, err := f.Triggers.place(f.ctx, f.rule, true)
			if err != nil || !p.created.Equal(f.place.created) || p.stream != f.place.stream {
				return errors.Join(errElsewhere, err)
			}
		}
	}
}

// fail ends f.
func (f *following) fail(err error) {
	select {
	case f.broken <- err:
	default:
	}
}

// save writes down how far the trigger got, if it got further.
func (f *following) save(ctx context.Context) {
	if !f.moved.Swap(false) || !f.pub.Conn().IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, saveEvery)
	defer cancel()
	info, err := f.place.consumer.Info(ctx)
	if err == nil && !info.Created.Equal(f.since) {
		err = errElsewhere
	}
	if err == nil {
		_, err = f.cursors().Edit(ctx, cursorKey(f.rule.Name), func(c cursor) (cursor, error) {
			next := info.AckFloor.Stream + 1
			if !c.of(f.rule) || !c.Created.Equal(f.place.created) || c.Next >= next {
				return c, kv.ErrKeep
			}
			c.Next = next
			return c, nil
		})
	}
	if err != nil {
		f.moved.Store(true)
		f.log.DebugContext(ctx, "position of trigger is not written down", "trigger", f.rule.Name, "err", err)
	}
}
