package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
)

// The model of a random program: what its jobs do, and what may become of them.

// randomJob is what the model knows of a job.
type randomJob struct {
	id        string
	what      string // see work
	fails     int    // attempts that fail, the first ones
	limit     int    // failures that end it
	due       time.Time
	limited   bool // by a deadline or a time to start
	cancel    bool // somebody asked for its end
	cancelled bool // and was told that it has come
	deleted   bool
	redrives  int // that there may have been
	ends      int
	was       bool            // at its end, when it was seen last
	running   context.Context // of the handler that was started last, until it returns
	attempt   int
}

// soloRun is a handler of a job with a unique key that was started.
type soloRun struct {
	id  string
	ctx context.Context
}

// job does what its input says, and notes that it does.
func (w *random) job() *engine.Job[string, string] {
	return engine.NewJob("job", func(ctx context.Context, in string) (string, error) {
		cur := engine.JobFrom(ctx)
		j := w.started(ctx, cur)
		if j == nil {
			return "", nil
		}
		defer w.returned(j, cur)
		w.report(cur)
		switch {
		case cur.Attempt <= j.fails && j.what == "snooze":
			return "", engine.Snooze(time.Second)
		case cur.Attempt <= j.fails:
			return "", errors.New("boom")
		case j.what == "long":
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(7 * time.Second):
			}
		case j.what == "stubborn":
			time.Sleep(9 * time.Second)
		}
		return "done" + in, nil
	}, engine.JobOptions{Retry: engine.Retry{Delay: 2 * time.Second, Factor: 1}})
}

// soloJob runs for a while, alone among those of its key.
func (w *random) soloJob() *engine.Job[string, string] {
	return engine.NewJob("solo", func(ctx context.Context, key string) (string, error) {
		id := engine.JobFrom(ctx).ID
		w.mu.Lock()
		if other := w.solos[key]; other.id != "" && other.id != id && other.ctx.Err() == nil {
			w.Errorf("%s was started while %s runs, and both have the key %s", id, other.id, key)
		}
		w.solos[key] = soloRun{id, ctx}
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.solos[key].id == id {
				delete(w.solos, key)
			}
		}()
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(5 * time.Second):
			return "done", nil
		}
	}, engine.JobOptions{MaxAttempts: 1000})
}

// solo submits some jobs with unique keys.
func (w *random) solo() {
	for range 1 + w.rng.IntN(5) {
		key := fmt.Sprint("key ", w.rng.IntN(3))
		w.insist(func(ctx context.Context) error {
			h, err := w.soloJob().Submit(ctx, w.client.Engine, key, engine.SubmitOptions{Unique: engine.Unique{Key: key}})
			if err == nil {
				w.soloIDs[h.ID] = true
			}
			return err
		})
	}
}

// started notes the start of a handler, and finds what must not be.
func (w *random) started(ctx context.Context, cur engine.Current) *randomJob {
	w.mu.Lock()
	defer w.mu.Unlock()
	j, key := w.jobs[cur.ID], fmt.Sprintf("%s attempt %d", cur.ID, cur.Attempt)
	switch other, again := w.starts[key]; {
	case j == nil:
		w.Errorf("%s was started, and nobody submitted it", key)
	case again && !j.deleted:
		w.Errorf("%s was started on %s and on %s", key, other, cur.Node)
	case time.Now().Before(j.due) && j.redrives == 0:
		w.Errorf("%s was started %v early", key, time.Until(j.due))
	case j.cancelled:
		w.Errorf("%s was started after it was cancelled", key)
	case w.isDrained(cur.Node):
		w.Errorf("%s was started on %s, which is drained", key, cur.Node)
	case !w.paused.IsZero() && time.Since(w.paused) > time.Minute:
		w.Errorf("%s was started although its queue is paused since %v", key, time.Since(w.paused))
	case w.limit > 0 && w.running() >= w.limit:
		w.Errorf("%s was started on %s, and %d run already", key, cur.Node, w.running())
	case j.running != nil && j.running.Err() == nil && !j.deleted:
		w.Errorf("%s was started on %s while attempt %d runs under a lease on %s", key, cur.Node, j.attempt, w.starts[fmt.Sprintf("%s attempt %d", cur.ID, j.attempt)])
	}
	w.starts[key], j.running, j.attempt = cur.Node, ctx, cur.Attempt
	return j
}

// isDrained reports whether a node said before this moment that it takes nothing. A
// handler that was called just then may be here only now.
func (w *random) isDrained(node string) bool {
	at, drained := w.drained[node]
	return drained && time.Now().After(at)
}

// running counts the handlers that run under a lease.
func (w *random) running() (n int) {
	for _, j := range w.jobs {
		if j.running != nil && j.running.Err() == nil {
			n++
		}
	}
	return n
}

// report says how far an attempt is, and finds what one before it left.
func (w *random) report(cur engine.Current) {
	var before int
	left, err := cur.Details(&before)
	if err != nil || left && (before < 1 || before >= cur.Attempt) {
		w.Errorf("%s attempt %d was left %d, %v", cur.ID, cur.Attempt, before, err)
	}
	cur.Progress(int64(cur.Attempt), 10, "")
	if err := cur.Heartbeat(cur.Attempt); err != nil {
		w.Errorf("%s: report details: %v", cur.ID, err)
	}
}

// returned notes that a handler has returned.
func (w *random) returned(j *randomJob, cur engine.Current) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.attempt == cur.Attempt {
		j.running = nil
	}
}

// watch counts how often each job comes to its end, by the revisions that are
// seen.
func (w *random) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := w.witness.Watch(ctx, engine.ListOptions{}, func(info engine.JobInfo) {
			w.mu.Lock()
			defer w.mu.Unlock()
			j := w.jobs[info.ID]
			if j == nil {
				return
			}
			if info.Ended() && !j.was {
				j.ends++
			}
			j.was = info.Ended()
		})
		if err != nil {
			w.Errorf("watch: %v", err)
		}
	}()
	w.Cleanup(func() { cancel(); <-done })
	time.Sleep(time.Second)
}

// check waits until all jobs have ended, and compares them with the model.
func (w *random) check() {
	limit := time.Now().Add(10 * time.Minute)
	for id, j := range w.jobs {
		ctx, cancel := context.WithDeadline(w.Context(), limit)
		info, err := w.witness.Wait(ctx, id)
		cancel()
		if errors.Is(err, engine.ErrNotFound) && j.deleted {
			continue
		}
		if why := w.wrong(j, info); err != nil || why != "" {
			w.Errorf("%s (%+v) is wrong: %v %s: %+v", id, *j, err, why, info)
		}
	}
	for id := range w.soloIDs {
		if info, err := w.witness.Wait(w.Context(), id); err != nil || info.State != "succeeded" {
			w.Errorf("%s is wrong: %v: %+v", id, err, info)
		}
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	for _, stream := range []string{"mr_default_work", "mr_default_timers"} {
		if left := w.left(stream); len(left) != 0 {
			w.Errorf("there are left in %s: %v", stream, left)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, j := range w.jobs {
		if j.ends > 1+j.redrives {
			w.Errorf("%s ended %d times", id, j.ends)
		}
	}
	if w.Failed() {
		w.Log(strings.Join(w.stories, "\n"))
	}
}

// left returns what is left in a stream. Jobs with large values have a timer for
// the end of their retention.
func (w *random) left(stream string) (left []string) {
	s, err := jetStream(w, w.witness.nc).Stream(w.Context(), stream)
	if err != nil {
		w.Fatal(err)
	}
	info, err := s.Info(w.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		w.Fatal(err)
	}
	for subject := range info.State.Subjects {
		if !strings.Contains(subject, ".expiry.") {
			left = append(left, subject)
		}
	}
	return left
}

// wrong says what the model does not allow about how a job ended.
func (w *random) wrong(j *randomJob, info engine.JobInfo) string {
	succeeded := slices.DeleteFunc(outcomes(info), func(o string) bool { return o != "succeeded" })
	var code string
	if info.Error != nil {
		code = info.Error.Code
	}
	switch {
	case info.State == "succeeded" && (len(succeeded) == 0 || len(succeeded) > 1+j.redrives || info.Attempt <= j.fails):
		return "it succeeded too soon, or more than once"
	case info.State != "succeeded" && len(succeeded) > j.redrives:
		return "a success was not its end"
	case info.State == "cancelled" && !j.cancel:
		return "nobody cancelled it"
	case j.cancelled && info.State != "cancelled":
		return "it was cancelled"
	case info.State == "failed" && (code == "deadline" || code == "queue_timeout") && !j.limited:
		return "it had no limit"
	case info.State == "failed" && code != "deadline" && code != "queue_timeout" && info.Failures != j.limit:
		return "it had failures left"
	case info.State == "succeeded" && info.Failures > j.limit:
		return "it had no failures left"
	}
	return ""
}
