package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// every defines a schedule that ticks every ten seconds.
func (p *process) every(name, kind string, change func(*engine.Schedule)) {
	p.t.Helper()
	s := engine.Schedule{Name: name, Every: spec.Duration(10 * time.Second), Job: kind}
	change(&s)
	if _, err := p.Apply(p.t.Context(), s); err != nil {
		p.t.Fatal(err)
	}
}

// jobs returns the jobs of a schedule, oldest first.
func (p *process) jobs(schedule string) (list []engine.JobInfo) {
	p.t.Helper()
	all, err := p.List(p.t.Context(), engine.ListOptions{Schedule: schedule})
	if err != nil {
		p.t.Fatal(err)
	}
	for i := range all {
		list = append(list, all[len(all)-1-i])
	}
	return list
}

// What a schedule has made says so, in every state: for which tick, and that this is its
// due time.
func TestTickInfo(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		p.run(alone(1), endless("slow"), engine.NewJob("fast", returns(nil, nil)))
		time.Sleep(time.Second)
		begun := time.Now().UTC()
		p.every("slows", "slow", func(s *engine.Schedule) { s.Overlap = spec.Overlap{Policy: spec.OverlapQueue, Limit: 1} })
		p.every("fasts", "fast", func(s *engine.Schedule) { s.Jitter = spec.Duration(5 * time.Second) })
		time.Sleep(time.Until(begun.Truncate(10 * time.Second).Add(10*time.Second + time.Millisecond)))
		first := begun.Truncate(10 * time.Second).Add(10 * time.Second)
		fast := p.jobs("fasts")[0]
		if fast.State != "scheduled" || !fast.Due.Equal(first) || fast.NextAttempt == nil || !fast.NextAttempt.After(first) || *fast.Wait != "delay" {
			t.Errorf("with jitter: %+v", fast)
		}
		time.Sleep(30 * time.Second)

		jobs := p.jobs("slows")
		if len(jobs) != 4 {
			t.Fatalf("there are %d jobs, want 4: %+v", len(jobs), jobs)
		}
		for i, state := range []string{"running", "scheduled", "skipped", "skipped"} {
			j := jobs[i]
			if j.State != state || *j.Schedule != "slows" || j.Tick.Number != int64(i)+1 || j.Tick.By != "clock" || j.Tick.Count != 1 ||
				!j.Due.Equal(first.Add(time.Duration(i)*10*time.Second)) || j.NextAttempt != nil {
				t.Errorf("job %d: %+v, tick %+v", i, j, j.Tick)
			}
		}
		if e := jobs[2].Error; e == nil || e.Code != "overlap" {
			t.Errorf("skipped for %+v", e)
		}
		because(t, p.Engine, jobs[0].ID, "running")
		because(t, p.Engine, jobs[1].ID, "turn", "it waits for a turn of schedule slows: job "+jobs[0].ID+" goes on, and no more than 1 may")
		because(t, p.Engine, jobs[2].ID, "ended", "it was skipped at ")
		if waits := waitsFor(t, p.Engine, jobs[1].ID); !strings.HasPrefix(waits, "it waits for a turn of schedule slows") {
			t.Errorf("get says %q", waits)
		}
		if _, err := p.Retry(t.Context(), jobs[2].ID, "skipped"); err != nil {
			t.Error(err)
		}
		if skipped, err := p.List(t.Context(), engine.ListOptions{Schedule: "slows", State: "skipped"}); err != nil || len(skipped) != 1 {
			t.Errorf("%d jobs are skipped, %v", len(skipped), err)
		}
		time.Sleep(time.Second)
		because(t, p.Engine, jobs[2].ID, "turn", "it waits for a turn of schedule slows: job "+jobs[0].ID+
			" goes on, and no more than 1 may; before it waits job "+jobs[1].ID)
		data, err := json.Marshal(jobs[2].Tick)
		if want := `{"number":3,"by":"clock","count":1,"until":null}`; err != nil || string(data) != want {
			t.Errorf("got %s, %v, want %s", data, err, want)
		}
		for _, j := range p.jobs("fasts") {
			if j.State != "succeeded" && j.State != "scheduled" || j.Due.UnixMilli()%10_000 != 0 {
				t.Errorf("with jitter: %+v", j)
			}
		}
		refused(t, listError(p, engine.ListOptions{Schedule: "a b"}), "schedule")
	})
}

func listError(p *process, o engine.ListOptions) error {
	_, err := p.List(p.t.Context(), o)
	return err
}

// A job that waits for a turn says who is to give it, if nobody does.
func TestWhyNoTurn(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, owner := start(t, srv, "a", nil), start(t, srv, "owner", nil)
		stop := serve(t, owner.Engine)
		p.run(alone(1), endless("slow"))
		time.Sleep(time.Second)
		p.every("slows", "slow", func(s *engine.Schedule) { s.Overlap = spec.Overlap{Policy: spec.OverlapQueue, Limit: 1} })
		time.Sleep(25 * time.Second)
		jobs := p.jobs("slows")
		if len(jobs) < 2 {
			t.Fatalf("there are %d jobs", len(jobs))
		}
		waits := jobs[1].ID
		because(t, p.Engine, waits, "turn")
		stop()
		time.Sleep(time.Second)
		because(t, p.Engine, waits, "no_owner", "it waits for a turn of schedule slows, and there is no owner to give it one: start")
		if err := p.DeleteSchedule(t.Context(), "slows"); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, waits, "no_owner")
		serve(t, start(t, srv, "next", nil).Engine)
		time.Sleep(time.Minute)
		because(t, p.Engine, waits, "ended", "it was skipped at", "slows")
		because(t, p.Engine, jobs[0].ID, "running")
	})
}

// A job that its schedule does not let begin any more says so: whoever comes to it
// skips it.
func TestWhyPaused(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		serve(t, p.Engine)
		p.every("loners", "lone", func(*engine.Schedule) {})
		time.Sleep(15 * time.Second)
		job := p.jobs("loners")[0].ID
		because(t, p.Engine, job, "no_worker", "start a worker with kind lone")
		if _, err := p.PauseSchedule(t.Context(), "loners"); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, job, "no_worker", "start a worker with kind lone; it is skipped then: schedule loners is paused")
		if _, err := p.ResumeSchedule(t.Context(), "loners"); err != nil {
			t.Fatal(err)
		}
		if why, err := p.Why(t.Context(), job); err != nil || strings.Contains(why.Text, "skipped") {
			t.Errorf("resumed, it says %+v, %v", why, err)
		}
	})
}

// Ticks are counted by what became of them, and by how late they were.
func TestTickMetrics(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, registry := watched(t, srv, "a")
		serve(t, p.Engine)
		p.run(alone(1), endless("slow"))
		time.Sleep(time.Second)
		p.every("slows", "slow", func(s *engine.Schedule) { s.Overlap = spec.Overlap{Policy: spec.OverlapSkip} })
		time.Sleep(time.Until(time.Now().Truncate(10 * time.Second).Add(41 * time.Second)))
		counted(t, registry, map[string]float64{
			"ticks_total slow made": 1, "ticks_total slow overlap": 3, "tick_lateness_seconds slow": 1,
			"jobs_submitted_total slow": 4, "jobs_ended_total slow skipped": 3,
		})
	})
}

// A broadcast of a schedule that takes turns waits for another one when it is retried,
// although the schedule is paused, and goes on with the parts that it had.
func TestTickBroadcastRetried(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		serve(t, start(t, srv, "owner", nil).Engine)
		all := engine.NewJob("all", func(ctx context.Context, _ any) (any, error) {
			if engine.JobFrom(ctx).Attempt == 1 {
				return nil, engine.Fail(errors.New("boom"))
			}
			return nil, nil
		})
		p.run(alone(1), all)
		time.Sleep(time.Second)
		p.every("alls", "", func(s *engine.Schedule) {
			s.Broadcast, s.Overlap = "all", spec.Overlap{Policy: spec.OverlapSkip}
		})
		time.Sleep(15 * time.Second)
		if _, err := p.PauseSchedule(t.Context(), "alls"); err != nil {
			t.Fatal(err)
		}
		jobs := p.jobs("alls")
		if len(jobs) != 1 || jobs[0].State != "failed" {
			t.Fatalf("got %+v", jobs)
		}
		start(t, srv, "b", nil).run(alone(1), all) // which is no part of it
		time.Sleep(time.Second)
		info, err := p.Retry(t.Context(), jobs[0].ID, "failed")
		if err != nil || info.State != "scheduled" || *info.Wait != "turn" {
			t.Errorf("retried, it is %+v, %v", info, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		info, err = p.Wait(ctx, jobs[0].ID)
		if err != nil || info.State != "succeeded" || info.Children.Total != 1 || info.Children.Succeeded != 1 {
			t.Errorf("it is %+v, %v", info, err)
		}
		time.Sleep(time.Second) // the owner hears of the end
		schedule, err := p.GetSchedule(t.Context(), "alls")
		if err != nil || len(schedule.Running) > 0 {
			t.Errorf("running are %v, %v", schedule.Running, err)
		}
	})
}
