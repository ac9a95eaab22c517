package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/streams"
)

const (
	// maxLines and maxBytes bound what waits in memory for NATS. The stream
	// keeps few more lines, and has to keep the one that says how many are
	// missing.
	maxLines = streams.LogLines - 2*window
	maxBytes = 1 << 20
	// window is how many lines are in flight at once. A line is in flight only
	// once all lines of the window before are stored.
	window = 64
	// again is the pause before lines that were not stored are sent again.
	again = 250 * time.Millisecond
)

// Source is the attempt whose lines a [Writer] takes.
type Source struct {
	Job     string
	Attempt int
	Fence   uint64
	Node    string
}

// Writer stores what one attempt says. It is safe for concurrent use. It costs
// nothing before the first line, and a goroutine from then on, until
// [Writer.Close].
type Writer struct {
	log     *Log
	source  Source
	subject string
	more    chan struct{} // something waits
	life    context.Context
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		stop    context.CancelFunc // ends the goroutine; nil if there is none
		number  uint64             // of the last line
		lines   []waiting
		bytes   int           // of the lines
		dropped waiting       // the last line that was dropped, if count is not 0
		count   int           // how many were dropped since that was said
		idle    chan struct{} // closed when everything is stored; nil if it is
		closed  bool
	}
}

// waiting is a line that is not stored yet.
type waiting struct {
	number uint64
	time   time.Time
	says   int // how many lines it says are missing
	msg    *nats.Msg
}

// Writer returns a writer for an attempt. The end of ctx is the end of its
// goroutine, too, but [Writer.Close] has to be called all the same.
func (l *Log) Writer(ctx context.Context, source Source) *Writer {
	return &Writer{log: l, source: source, subject: l.ns.LogSubject(source.Job), more: make(chan struct{}, 1), life: ctx}
}

// Handler returns a handler whose records become lines, from [Level] on. After
// [Writer.Close] they are dropped.
func (w *Writer) Handler() slog.Handler { return handler{w: w} }

// Say adds a line without attributes, at [Level].
func (w *Writer) Say(text string) { w.say(Line{Time: time.Now(), Level: Level, Text: text}) }

// say adds a line. If too many wait, the oldest go.
func (w *Writer) say(line Line) {
	line.fit()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		return
	}
	if w.mu.stop == nil {
		ctx, stop := context.WithCancel(w.life)
		w.mu.stop = stop
		w.running.Go(func() { w.run(ctx) })
	}
	w.mu.number++
	next, err := w.encode(w.mu.number, line)
	if err != nil { // a line always has a JSON
		w.log.log.Error("line cannot be stored", "job", w.source.Job, "err", err)
		return
	}
	w.mu.lines = append(w.mu.lines, next)
	w.mu.bytes += len(next.msg.Data)
	for len(w.mu.lines) > 1 && (len(w.mu.lines) > maxLines || w.mu.bytes > maxBytes) {
		w.drop(w.shift())
	}
	if w.mu.idle == nil {
		w.mu.idle = make(chan struct{})
	}
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// encode makes a line ready to be sent.
func (w *Writer) encode(number uint64, line Line) (waiting, error) {
	line.Time, line.Attempt, line.Node = line.Time.UTC(), w.source.Attempt, w.source.Node
	msg, err := stored{Fence: w.source.Fence, Number: number, Line: line}.message(w.subject)
	return waiting{number: number, time: line.Time, says: line.Dropped, msg: msg}, err
}

// shift takes the oldest line. The caller holds the lock.
func (w *Writer) shift() waiting {
	first := w.mu.lines[0]
	w.mu.lines[0] = waiting{}
	w.mu.lines = w.mu.lines[1:]
	w.mu.bytes -= len(first.msg.Data)
	return first
}

// drop gives a line up, which the next one says. The caller holds the lock.
func (w *Writer) drop(line waiting) {
	if line.number > w.mu.dropped.number {
		w.mu.dropped = line
	}
	w.mu.count += max(line.says, 1)
}

// take returns what is to be sent next, or nothing if everything is stored. Lines
// that were dropped are told of in their place, and under the number of the last.
func (w *Writer) take() []waiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	var batch []waiting
	if n := w.mu.count; n > 0 {
		text := fmt.Sprintf("%d lines are missing: they could not be stored in time", n)
		line, err := w.encode(w.mu.dropped.number, Line{Time: w.mu.dropped.time, Level: slog.LevelWarn, Text: text, Dropped: n})
		if err == nil {
			batch = append(batch, line)
		}
		w.mu.dropped, w.mu.count = waiting{}, 0
	}
	for len(batch) < window && len(w.mu.lines) > 0 {
		batch = append(batch, w.shift())
	}
	if len(batch) == 0 && w.mu.idle != nil {
		close(w.mu.idle)
		w.mu.idle = nil
	}
	return batch
}

// run stores lines until ctx ends.
func (w *Writer) run(ctx context.Context) {
	for {
		batch := w.take()
		for len(batch) > 0 {
			if batch = w.send(ctx, batch); ctx.Err() != nil {
				w.giveUp(len(batch))
				return
			}
		}
		if w.idle() == nil {
			select {
			case <-w.more:
			case <-ctx.Done():
				w.giveUp(0)
				return
			}
		}
	}
}

// send sends lines and returns those that are to be sent again, after a pause.
// What the server refuses for good is dropped.
func (w *Writer) send(ctx context.Context, batch []waiting) (left []waiting) {
	errs := make([]chan error, len(batch))
	for i, line := range batch {
		errs[i] = make(chan error, 1)
		if err := w.log.pub.Room(ctx); err != nil {
			errs[i] <- publish.ErrUnsent
			continue
		}
		w.log.pub.PublishAsync(line.msg, func(_ publish.Ack, err error) { errs[i] <- err })
	}
	var last error
	for i, line := range batch {
		var err error
		select {
		case err = <-errs[i]:
		case <-ctx.Done():
			err = publish.ErrUnknown
		}
		switch {
		case err == nil:
			continue
		case passing(err):
			left = append(left, line)
		default:
			w.refused(line)
		}
		last = err
	}
	if last != nil {
		w.log.log.Debug("lines are not stored", "job", w.source.Job, "err", last)
		wait.For(ctx, again)
	}
	return left
}

// passing reports whether a line may be stored at another try.
func passing(err error) bool {
	refusal := new(jetstream.APIError)
	return publish.Passing(err) || errors.As(err, &refusal) && refusal.Code >= 500 // such as no space left
}

func (w *Writer) refused(line waiting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(line)
}

// idle returns a channel that is closed when everything is stored, or nil if it
// is.
func (w *Writer) idle() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.idle
}

// flushSteps is how often Flush looks whether NATS is there.
const flushSteps = 20

// Flush waits until everything is stored that was said so far, and reports
// whether it is. It gives up when ctx ends, or when NATS was there for as long as
// patience says and would not have it: a handler's outcome should not be stored
// before its last words, but the words may fail where the outcome does not.
func (w *Writer) Flush(ctx context.Context, patience time.Duration) bool {
	idle := w.idle()
	if idle == nil {
		return true
	}
	step := max(patience/flushSteps, time.Millisecond)
	tick := time.NewTicker(step)
	defer tick.Stop()
	for patience > 0 {
		select {
		case <-idle:
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
			if nc := w.log.pub.Conn(); nc.IsConnected() || nc.IsClosed() {
				patience -= step
			}
		}
	}
	return false
}

// Close ends the writer. Lines that are not stored by now are lost, which the
// log of the process says.
func (w *Writer) Close() {
	w.mu.Lock()
	w.mu.closed = true
	stop := w.mu.stop
	w.mu.Unlock()
	if stop != nil {
		stop()
		w.running.Wait()
	}
}

// giveUp says how many lines are lost, of which some were in flight.
func (w *Writer) giveUp(inFlight int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if lost := inFlight + len(w.mu.lines) + w.mu.count; lost > 0 {
		w.log.log.Warn("lines of a job are lost", "job", w.source.Job, "attempt", w.source.Attempt, "lines", lost)
	}
}
