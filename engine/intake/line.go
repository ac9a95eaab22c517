package intake

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/wait"
)

// line takes items of one queue: one lane for each class that is used, or one for
// all if the queue has a limit.
type line struct {
	*Intake
	queue  string
	taking context.Context // of Run
}

// requestTime bounds a look at the consumers of a queue.
const requestTime = 5 * time.Second

// run takes items until ctx ends. Whenever a consumer is not there, or goes, it
// begins anew with what the definition of the queue says then.
func (l *line) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !l.opts.Ready() {
			wait.For(ctx, pullPause/5)
			continue
		}
		limited, err := l.open(ctx)
		if err == nil {
			l.live(ctx, limited)
		} else if ctx.Err() == nil {
			l.opts.Logger.DebugContext(ctx, "queue cannot be served", "queue", l.queue, "err", err)
			wait.For(ctx, pullPause)
		}
	}
}

// open makes the consumer of the queue if there is none. One that is there stays
// as it is, whatever its shape: whoever has changed the definition changes it too,
// or else the owner.
func (l *line) open(ctx context.Context) (limited bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	shape, err := l.opts.Shape(ctx, l.queue)
	if err == nil {
		err = l.work.Open(ctx, l.queue, "", shape)
	}
	return shape.Concurrency > 0, err
}

// errShape is why a line begins anew although its consumer is there.
var errShape = errors.New("it is served in another way by now")

// live runs the lanes until ctx ends, a consumer goes, or the queue is served in
// another way.
func (l *line) live(ctx context.Context, limited bool) {
	ctx, over := context.WithCancel(ctx)
	defer over()
	var loops sync.WaitGroup
	loop := func(run func(context.Context) error) {
		loops.Go(func() {
			if err := run(ctx); err != nil {
				over()
			}
		})
	}
	start := func(class string) { loop((&lane{l, class}).run) }
	start("")
	if limited {
		loop(l.limited)
	} else {
		loop(func(ctx context.Context) error { return l.discover(ctx, start) })
	}
	loops.Wait()
}
