package doctor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
)

// schedule defines one that ticks every second.
func (p *process) schedule(name, kind string, change ...func(*engine.Schedule)) {
	p.t.Helper()
	s := engine.Schedule{Name: name, Every: spec.Duration(time.Second), Job: kind, Overlap: spec.Overlap{Policy: spec.OverlapSkip}}
	for _, c := range change {
		c(&s)
	}
	if _, err := p.Apply(p.t.Context(), s); err != nil {
		p.t.Fatal(err)
	}
}

// paused keeps a schedule from ticking.
func paused(s *engine.Schedule) { yes := true; s.Paused = &yes }

var ofSchedules = []finding{
	{"schedules that tick", func(w *ward) {
		w.client.schedule("mails", "mail")
		w.client.schedule("letters", "post", paused)
		w.client.schedule("never", "mail", func(s *engine.Schedule) {
			s.Every, s.At = 0, []time.Time{time.Now().Add(10 * time.Second).Truncate(time.Millisecond)}
		})
		time.Sleep(2 * time.Minute)
	}, doctor.Options{}, nil},
	{"jobs that wait for a turn", func(w *ward) {
		w.client.schedule("slow", "mail.endless", func(s *engine.Schedule) { s.Overlap = spec.Overlap{Policy: spec.OverlapQueue, Limit: 2} })
		time.Sleep(2 * time.Minute)
	}, doctor.Options{}, nil},
	{"a schedule that nobody works for", func(w *ward) {
		w.client.schedule("letters", "post", func(s *engine.Schedule) { s.Every = spec.Duration(time.Hour) })
	}, doctor.Options{}, []string{
		`warning targets: no node has a handler for kind post and takes from queue post, as 1 schedule wants: letters: start`,
	}},
	{"a schedule that has halted, and one that cannot be used", func(w *ward) {
		w.client.schedule("fails", "mail.endless", func(s *engine.Schedule) {
			s.PauseAfterFailures, s.Deadline = 2, spec.Duration(2*time.Second)
		})
		w.publish("$KV.mr_default_config.schedule.odd", nats.Header{"Mr-Type": {"schedule/9"}})
		time.Sleep(time.Minute)
	}, doctor.Options{}, []string{
		`wrong schedules: schedule odd cannot be used: \S.*: apply it again with a build that knows it, or delete it with millrace schedule delete odd$`,
		`warning halted: schedule fails has halted: 2 jobs in a row failed: see its jobs with millrace job list --schedule fails, and`,
	}},
	{"schedules without an owner", func(w *ward) {
		w.client.schedule("mails", "mail")
		w.client.schedule("gone", "mail", paused)
		w.client.schedule("rare", "mail", func(s *engine.Schedule) { s.Every = spec.Duration(1000 * time.Hour) })
		time.Sleep(time.Minute)
		w.serve.link.Down()
		w.client.schedule("new", "mail")
		if err := w.client.DeleteSchedule(w.Context(), "gone"); err != nil {
			w.Error(err)
		}
		time.Sleep(time.Minute)
	}, doctor.Options{}, []string{
		`wrong owner: no node is the owner`,
		`warning schedules: 1 cursor of schedules that are not there: gone: see whether there is an owner`,
		`wrong ticks: 2 schedules are not seen to, by up to 1m0s: mails, new: see whether there is an owner`,
	}},
}

// Whatever is wrong with schedules is found, and nothing else.
func TestFindingsOfSchedules(t *testing.T) { examineAll(t, ofSchedules) }

// With the grants of a client one can look at schedules and have them run, and with
// those of who serves let them tick.
func TestGrantsOfSchedules(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		srv := startWith(t, &server.Options{JetStream: true, Users: users(map[string]*server.Permissions{
			"client": may(t, "client", "mail"), "worker": may(t, "worker", "mail"), "serve": may(t, "serve", "*"),
		})})
		d := new(denied)
		serve := start(t, srv, "s", d.user("serve")...)
		serve.run(serve.Serve)
		time.Sleep(time.Second)
		worker, client := start(t, srv, "w", d.user("worker")...), start(t, srv, "c", d.user("client")...)
		stop := worker.work(instant("mail"), endless("mail.endless"))
		serve.schedule("mails", "mail", func(s *engine.Schedule) { s.Overlap = spec.Overlap{} })
		serve.schedule("slow", "mail.endless")
		serve.schedule("all", "mail", func(s *engine.Schedule) {
			s.Job, s.Broadcast, s.Overlap = "", "mail", spec.Overlap{Policy: spec.OverlapCancelPrevious}
		})
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err1 := client.Schedules(ctx)
		info, err2 := client.GetSchedule(ctx, "mails")
		_, err3 := client.NextTicks(ctx, "mails", 3)
		run, err4 := client.TriggerSchedule(ctx, "mails")
		_, err5 := client.BackfillSchedule(ctx, "mails", time.Now().Add(-time.Hour), time.Now().Add(-time.Hour+5*time.Second))
		waits, err6 := client.TriggerSchedule(ctx, "slow")
		if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
			t.Fatal(err)
		}
		if info.Made < 5 {
			t.Errorf("%d jobs were made within 10 s", info.Made)
		}
		_, err1 = run.Wait(ctx)
		if _, err2 = client.Wait(ctx, waits.ID); err2 == nil {
			_, err2 = client.Retry(ctx, waits.ID, "skipped")
		}
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
		}
		why, err := client.Why(ctx, waits.ID)
		if err != nil || why.Code != engine.WhyTurn {
			t.Errorf("got %+v, %v", why, err)
		}
		for _, schedule := range []string{"mails", "slow", "all"} {
			if err := serve.DeleteSchedule(ctx, schedule); err != nil {
				t.Error(err)
			}
		}
		stop()
		time.Sleep(15 * time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.what) > 0 {
			t.Errorf("denied:\n%s", strings.Join(d.what, "\n"))
		}
	})
}
