package attempt

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/wait"
)

// reportEvery is how often what a handler reports is stored at most.
const reportEvery = time.Second

// reporter hears what one attempt says of itself, from the claim until its
// outcome is decided: lines for its log, how far it is, and that it lives. The
// handler waits for none of that, and an attempt that says nothing costs nothing.
//
// A report is one write of the record, fenced by the attempt's token. If the
// process dies before it, the next attempt finds the report before. If its answer
// is lost, the record is read again. If the handler returns while it is under
// way, it is not waited for: the outcome carries the report once more, and is
// stored on whatever revision the attempt is at then. A report of an attempt that
// has lost the job is dropped.
type reporter struct {
	runner  *Runner
	token   string
	claimed machine.Job // as it was when the attempt began
	lines   *logs.Writer
	wake    chan struct{} // something is to be stored
	storing sync.WaitGroup

	mu struct {
		sync.Mutex
		entry store.Entry        // the newest that this attempt knows
		said  *machine.Report    // what is not stored yet
		stop  context.CancelFunc // ends the storing; nil if nothing was reported
		life  *time.Timer        // ends the attempt; nil if it needs no sign of life
		every time.Duration      // how long it may be without one
		over  bool               // the handler has returned
	}
}

// reporter returns the reporter of an attempt that was claimed.
func (r *Runner) reporter(entry store.Entry, token string) *reporter {
	j := entry.Value
	source := logs.Source{Job: j.ID, Attempt: j.Attempt, Fence: j.Fence, Node: j.Lease.Node}
	says := &reporter{
		runner: r, token: token, claimed: j, lines: r.opts.Logs.Writer(r.storing, source),
		wake: make(chan struct{}, 1),
	}
	says.mu.entry = entry
	return says
}

// watch calls end when there is no sign of life for some time, until the function
// that it returns is called.
func (r *reporter) watch(every time.Duration, end func()) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.life, r.mu.every = time.AfterFunc(every, end), every
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.mu.life.Stop()
		r.mu.life = nil
	}
}

// beat takes a sign of life.
func (r *reporter) beat() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.life != nil {
		r.mu.life.Reset(r.mu.every)
	}
}

// say has a report stored soon, in place of what has not been stored of those
// before.
func (r *reporter) say(report machine.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.over {
		return
	}
	r.mu.said = merge(r.mu.said, report)
	if r.mu.stop == nil {
		ctx, stop := context.WithCancel(r.runner.storing)
		r.mu.stop = stop
		r.storing.Go(func() { r.run(ctx) })
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// merge returns what an earlier and a later report say together.
func merge(before *machine.Report, after machine.Report) *machine.Report {
	if before == nil {
		return &after
	}
	if after.Progress == nil {
		after.Progress = before.Progress
	}
	if len(after.Details) == 0 {
		after.Details = before.Details
	}
	return &after
}

// run stores reports, one in a second at most, until ctx ends or the attempt has
// lost the job.
func (r *reporter) run(ctx context.Context) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		var moved *machine.MoveError
		if err := r.store(ctx); errors.As(err, &moved) || errors.Is(err, store.ErrNotFound) {
			return
		}
		wait.For(ctx, reportEvery)
	}
}

// store stores what was said and is not stored yet. If that fails it is said
// again, unless something newer was.
func (r *reporter) store(ctx context.Context) error {
	r.mu.Lock()
	entry, said := r.mu.entry, r.mu.said
	r.mu.said = nil
	r.mu.Unlock()
	if said == nil {
		return nil
	}
	stored, err := r.runner.opts.Store.Report(ctx, entry, r.token, *said)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.mu.entry = stored
		return nil
	}
	if ctx.Err() == nil {
		r.runner.opts.Logger.Debug("report is not stored", "job", entry.Key, "err", err)
	}
	if r.mu.said != nil {
		said = merge(said, *r.mu.said)
	}
	r.mu.said = said
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return err
}

// close ends the storing of reports, and returns the newest revision of the job
// that the attempt knows and what it has reported and is not known to be stored.
func (r *reporter) close() (store.Entry, *machine.Report) {
	r.mu.Lock()
	r.mu.over = true
	stop := r.mu.stop
	r.mu.Unlock()
	if stop != nil {
		stop()
		r.storing.Wait()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.entry, r.mu.said
}

// lastWords adds to the outcome of an attempt what it has reported last.
func lastWords(ev machine.Event, report *machine.Report) machine.Event {
	switch ev := ev.(type) {
	case machine.Done:
		ev.Report = report
		return ev
	case machine.Erred:
		ev.Report = report
		return ev
	case machine.Returned:
		ev.Report = report
		return ev
	}
	return ev
}
