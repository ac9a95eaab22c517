package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// report is the input of jobs that schedules make.
type report struct {
	Of     string `json:"of"`
	Number any    `json:"number"`
}

// build returns a job that takes a while and returns its input.
func build(takes time.Duration, opts ...engine.JobOptions) *engine.Job[report, report] {
	return engine.NewJob("report.build", func(ctx context.Context, in report) (report, error) {
		select {
		case <-time.After(takes):
			return in, nil
		case <-ctx.Done():
			return in, context.Cause(ctx)
		}
	}, opts...)
}

// hourlyReport is a schedule of such jobs.
var hourlyReport = engine.Schedule{
	Name: "hourly", Cron: "0 * * * *", Job: "report.build", Input: json.RawMessage(`{"of":"${tick.time}","number":"${tick.number}"}`),
}

// mustApply stores a definition of a schedule.
func mustApply(t testing.TB, eng *engine.Engine, s engine.Schedule) engine.Applied {
	t.Helper()
	a, err := eng.Apply(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// trigger makes a job of the hourly schedule.
func trigger(t testing.TB, eng *engine.Engine, runs ...engine.ScheduleRun) *engine.Handle[json.RawMessage] {
	t.Helper()
	job, err := eng.TriggerSchedule(t.Context(), "hourly", runs...)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// A schedule of a job with types has the options of that, and its input.
func TestScheduleOfJob(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		job := build(time.Second, engine.JobOptions{Queue: "slow", MaxAttempts: 2, Class: engine.Low, Deadline: time.Hour, QueueTimeout: time.Minute})
		applied, err := job.Schedule(t.Context(), eng, report{Of: "${tick.time}", Number: "${tick.number}"}, engine.Schedule{Name: "often", Cron: "* * * * *", MaxAttempts: 3})
		if err != nil || applied.Action != engine.Created {
			t.Fatalf("got %+v, %v", applied, err)
		}
		info, err := eng.GetSchedule(t.Context(), "often")
		if err != nil {
			t.Fatal(err)
		}
		want := engine.Schedule{
			Name: "often", Cron: "* * * * *", Job: "report.build", Queue: "slow", Class: "low", MaxAttempts: 3,
			Deadline: spec.Duration(time.Hour), QueueTimeout: spec.Duration(time.Minute),
			Input: json.RawMessage(`{"of":"${tick.time}","number":"${tick.number}"}`), Revision: info.Revision,
		}
		if d := cmp.Diff(want, *info.Definition); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if _, err := job.Schedule(t.Context(), eng, report{}, engine.Schedule{Name: "a", Cron: "@daily", Job: "mail.send"}); err == nil || !strings.Contains(err.Error(), "leave one out") {
			t.Errorf("a schedule of another job: %v", err)
		}
		if _, err := job.Schedule(t.Context(), eng, report{}, engine.Schedule{Name: "all", Cron: "@daily", Broadcast: "report.build"}); err != nil {
			t.Errorf("a broadcast: %v", err)
		}

		serve(t, connect(t, srv))
		work(t, connect(t, srv), engine.WorkerOptions{}, job)
		time.Sleep(2*time.Minute + 10*time.Second)
		jobs, err := eng.List(t.Context(), engine.ListOptions{Queue: "slow"})
		if err != nil {
			t.Fatal(err)
		}
		var results []string
		for _, j := range jobs {
			results = append(results, j.ID+" "+string(j.Result))
		}
		slices.Sort(results)
		if d := cmp.Diff([]string{
			`slow.often=946684860000 {"of":"2000-01-01T00:01:00Z","number":1}`,
			`slow.often=946684920000 {"of":"2000-01-01T00:02:00Z","number":2}`,
		}, results); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// Whoever triggers a schedule gets a job of his own, also at the same moment; for a
// time that he says he gets the one that is there.
func TestTriggerSchedule(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		mustApply(t, eng, hourlyReport)
		if _, err := eng.PauseSchedule(t.Context(), "hourly"); err != nil {
			t.Fatal(err)
		}
		serve(t, connect(t, srv))
		work(t, connect(t, srv), engine.WorkerOptions{}, build(time.Second))
		time.Sleep(10 * time.Second)

		first, second := trigger(t, eng), trigger(t, eng)
		if !first.Created || !second.Created || first.ID == second.ID {
			t.Errorf("got %s and %s, created %v and %v", first.ID, second.ID, first.Created, second.Created)
		}
		at := time.Now().Add(-time.Hour)
		third := trigger(t, eng, engine.ScheduleRun{At: at, Input: json.RawMessage(`{"of":"${nothing}"}`)})
		again := trigger(t, eng, engine.ScheduleRun{At: at})
		if !third.Created || again.Created || third.ID != again.ID || !strings.HasSuffix(third.ID, "-manual") {
			t.Errorf("got %s and %s, created %v and %v", third.ID, again.ID, third.Created, again.Created)
		}
		result, err := third.Wait(t.Context())
		if string(result) != `{"of":"${nothing}","number":null}` || err != nil {
			t.Errorf("got %s, %v", result, err)
		}
		var got report
		if result, err = first.Wait(t.Context()); err == nil {
			err = json.Unmarshal(result, &got)
		}
		if err != nil || !strings.HasPrefix(got.Of, "2000-01-01T00:00:1") || got.Number != 0.0 {
			t.Errorf("got %s, %v", result, err)
		}

		for schedule, want := range map[string]string{"none": "there is no schedule of that name", "no.name": "use only"} {
			if _, err := eng.TriggerSchedule(t.Context(), schedule); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		if _, err := eng.TriggerSchedule(t.Context(), "hourly", engine.ScheduleRun{Input: json.RawMessage(`{`)}); err == nil {
			t.Error("an input that is no JSON is taken")
		}
	})
}

// A job by hand is under the policy of its schedule, like a tick.
func TestTriggerTakesTurns(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		s := hourlyReport
		s.Overlap = spec.Overlap{Policy: spec.OverlapQueue, Limit: 1}
		mustApply(t, eng, s)
		serve(t, connect(t, srv))
		work(t, connect(t, srv), engine.WorkerOptions{}, build(10*time.Second))
		time.Sleep(10 * time.Second)
		var jobs []*engine.Handle[json.RawMessage]
		for range 3 {
			jobs = append(jobs, trigger(t, eng))
			time.Sleep(time.Second)
		}
		var ends []time.Time
		for i, want := range []string{"succeeded", "succeeded", "skipped"} {
			info, err := eng.Wait(t.Context(), jobs[i].ID)
			if err != nil || info.State != want {
				t.Errorf("job %d is %s, %v: want %s", i, info.State, err, want)
			}
			ends = append(ends, *info.Finished)
		}
		if between := ends[1].Sub(ends[0]); between < 10*time.Second {
			t.Errorf("the second has ended %v after the first, which takes 10s", between)
		}
	})
}

// A backfill that was cut short is made up for by the next one, and each tick has one
// job, whatever the schedule makes by then.
func TestBackfillSchedule(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		mustApply(t, eng, hourlyReport)
		serve(t, connect(t, srv))
		work(t, connect(t, srv), engine.WorkerOptions{Slots: 10}, build(time.Second))
		from, to := time.Now().Add(-300*time.Hour), time.Now()

		weak := start(t, srv, "weak", func(w natstest.Write) natstest.Fault {
			switch {
			case w.Number%47 == 0:
				return natstest.LoseAnswer
			case w.Number == 100:
				return natstest.DownAfter
			}
			return natstest.Pass
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if done, err := weak.BackfillSchedule(ctx, "hourly", from, to); err == nil {
			t.Fatalf("without a connection: %+v", done)
		}
		done, err := eng.BackfillSchedule(t.Context(), "hourly", from, to)
		if err != nil || done.Made+done.Attached != 300 || done.Attached < 40 || len(done.Jobs) != 300 {
			t.Fatalf("made %d and attached to %d, %d in all, %v: want 300", done.Made, done.Attached, len(done.Jobs), err)
		}
		other := hourlyReport
		other.Job = "report.other"
		mustApply(t, eng, other)
		again, err := eng.BackfillSchedule(t.Context(), "hourly", from, to)
		if err != nil || again.Made != 0 || again.Attached != 300 {
			t.Errorf("again: made %d, attached to %d, %v", again.Made, again.Attached, err)
		}
		for _, id := range done.Jobs {
			if info, err := eng.Wait(t.Context(), id); err != nil || info.State != "succeeded" || info.Attempt != 1 {
				t.Errorf("job %s is %s after %d attempts, %v", id, info.State, info.Attempt, err)
			}
		}
	})
}

// Broadcasts and sharded jobs are made by hand as well, and of ticks that are over.
func TestTriggerFans(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		serve(t, connect(t, srv))
		for _, node := range []string{"a", "b"} {
			work(t, connect(t, srv, engine.Options{Node: node}), engine.WorkerOptions{}, build(time.Second))
		}
		time.Sleep(10 * time.Second)
		for name, s := range map[string]engine.Schedule{
			"broadcast": {Broadcast: "report.build"}, "sharded": {Job: "report.build", Shards: 2},
			"one": {Broadcast: "report.build", Overlap: spec.Overlap{Policy: spec.OverlapSkip}},
		} {
			s.Name, s.Cron = "hourly", "0 * * * *"
			mustApply(t, eng, s)
			job := trigger(t, eng)
			if info, err := eng.Wait(t.Context(), job.ID); err != nil || info.State != "succeeded" || info.Children.Total != 2 {
				t.Errorf("%s: got %s, %v, %+v", name, info.State, err, info.Children)
			}
			done, err := eng.BackfillSchedule(t.Context(), "hourly", time.Now().Add(-2*time.Hour), time.Time{})
			if err != nil || len(done.Jobs) != 2 {
				t.Fatalf("%s: %+v, %v", name, done, err)
			}
			for _, id := range done.Jobs {
				if info, err := eng.Wait(t.Context(), id); err != nil || info.State != "succeeded" {
					t.Errorf("%s: job %s is %s, %v", name, id, info.State, err)
				}
				if err := eng.Delete(t.Context(), id); err != nil { // for the next kind of jobs
					t.Error(err)
				}
			}
		}
		if _, err := eng.TriggerSchedule(t.Context(), "none"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}
