package intake

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/streams"
)

const (
	// lookEvery is how often it is looked whether a class is used, since its
	// first item may not be heard.
	lookEvery = 30 * time.Second
	// lookAgain is when that is tried again if it failed.
	lookAgain = time.Second
)

// discovery learns which classes of a queue are used besides the normal one, and
// starts their lanes. The first item of a class is heard as it is stored, since
// the subjects of a stream are subjects like others. What was not heard is found
// by looking: at the start and at each reconnect, 2 s after that, and every 30 s.
// So a queue without priorities has no consumers for them, and whoever submits
// needs no right to make any.
type discovery struct {
	*line
	start func(class string)

	heard chan string       // classes of which an item was heard
	stop  map[string]func() // by class, while it is listened for
	open  map[string]bool   // classes that have a lane
	look  *time.Timer       // when to look again
	fresh bool              // on this connection it was not looked yet
}

// discover starts the lanes of classes until ctx ends, or all have one. It returns
// an error if the queue has a limit meanwhile.
func (l *line) discover(ctx context.Context, start func(class string)) error {
	d := &discovery{
		line: l, start: start,
		heard: make(chan string, 2*len(classes)), stop: map[string]func(){}, open: map[string]bool{}, look: time.NewTimer(0), fresh: true,
	}
	back, stop := l.work.Reconnected()
	defer stop()
	defer d.deafen()
	defer d.look.Stop()
	for len(d.open) < len(classes) {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case class := <-d.heard:
			err = d.use(ctx, class)
		case _, open := <-back:
			if !open {
				back = nil // the connection was closed
			}
			d.fresh = true
			d.look.Reset(0)
		case <-d.look.C:
			err = d.all(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// classes are those that are used rarely.
var classes = []string{streams.High, streams.Low}

// all listens for the classes that have no lane, and then looks which of them are
// used. What is on its way just then may not be heard, nor be stored already, if it was
// not listened for before: so it is looked again soon.
func (d *discovery) all(ctx context.Context) error {
	d.look.Reset(lookEvery)
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	err := d.listen()
	var used []string
	if err == nil {
		used, err = d.work.Used(ctx, d.queue)
	}
	if err != nil {
		d.later(ctx, err)
		return nil
	}
	if d.fresh {
		d.fresh = false
		d.look.Reset(settleTime)
	}
	for _, class := range used {
		if err := d.use(ctx, class); err != nil {
			return err
		}
	}
	return nil
}

// later looks again soon, after what failed.
func (d *discovery) later(ctx context.Context, err error) {
	d.opts.Logger.DebugContext(ctx, "classes of a queue are looked for again", "queue", d.queue, "err", err)
	d.fresh = true
	d.look.Reset(lookAgain)
}

// listen listens anew, and only then no longer as before.
func (d *discovery) listen() error {
	for _, class := range classes {
		if d.open[class] {
			continue
		}
		stop, err := d.work.Hear(d.queue, class, func() {
			select {
			case d.heard <- class:
			default: // it is looked for in any case
			}
		})
		if err != nil {
			return err
		}
		if before := d.stop[class]; before != nil {
			before()
		}
		d.stop[class] = stop
	}
	return nil
}

// deafen listens no more.
func (d *discovery) deafen() {
	for class, stop := range d.stop {
		stop()
		delete(d.stop, class)
	}
}

// use starts the lane of a class. Its consumer is refused if the queue has a limit
// by now.
func (d *discovery) use(ctx context.Context, class string) error {
	if d.open[class] {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	shape, err := d.opts.Shape(ctx, d.queue)
	if err == nil && shape.Concurrency > 0 {
		return fmt.Errorf("intake: queue %s: %w", d.queue, errShape)
	}
	if err == nil {
		err = d.work.Open(ctx, d.queue, class, shape)
	}
	if err != nil {
		d.later(ctx, err)
		return nil
	}
	d.open[class] = true
	if stop := d.stop[class]; stop != nil {
		stop()
		delete(d.stop, class)
	}
	d.start(class)
	return nil
}

// limited returns an error when the queue has no limit any more, or nil when ctx
// ends. As a rule the consumer goes then, which is noticed sooner.
func (l *line) limited(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		shape, err := l.opts.Shape(ctx, l.queue)
		if err == nil && shape.Concurrency == 0 {
			return fmt.Errorf("intake: queue %s: %w", l.queue, errShape)
		}
	}
}
