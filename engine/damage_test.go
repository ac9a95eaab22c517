package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// damages are what can be done to an installation behind its back.
var damages = map[string]func(*testing.T, *nats.Conn){
	"work purged":   func(t *testing.T, nc *nats.Conn) { purge(t, nc, "mr_default_work") },
	"timers purged": func(t *testing.T, nc *nats.Conn) { purge(t, nc, "mr_default_timers") },
	"consumer deleted": func(t *testing.T, nc *nats.Conn) {
		if err := jetStream(t, nc).DeleteConsumer(t.Context(), "mr_default_work", "job"); err != nil {
			t.Fatal(err)
		}
	},
	"owner deleted": func(t *testing.T, nc *nats.Conn) {
		leases, err := jetStream(t, nc).KeyValue(t.Context(), "mr_default_leases")
		if err == nil {
			err = leases.Delete(t.Context(), "owner")
		}
		if err != nil {
			t.Fatal(err)
		}
	},
}

// A thousand jobs in every state that is no end, and then something that drives
// them is gone: all of them end within 30 s of that, after one attempt more at
// most, without anybody's help.
func TestDamage(t *testing.T) {
	all := func(t *testing.T, nc *nats.Conn) {
		for _, damage := range damages {
			damage(t, nc)
		}
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) { testDamage(t, damage) })
	}
	t.Run("everything", func(t *testing.T) { testDamage(t, all) })
}

func testDamage(t *testing.T, damage func(*testing.T, *nats.Conn)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const each = 200
		p, l := start(t, srv, "client", nil), newLedger()
		serve(t, p.Engine)
		worker := start(t, srv, "a", nil)
		worker.run(engine.WorkerOptions{Slots: 2 * each}, damaged("job", l))

		ids := map[string][]string{}
		many := func(state string, job *engine.Job[string, string], what string, opts engine.SubmitOptions) {
			t.Helper()
			handles, err := job.SubmitMany(t.Context(), p.Engine, func(yield func(engine.Submission[string]) bool) {
				for i := range each {
					opts.ID = state + strconv.Itoa(i)
					if !yield(engine.Submission[string]{Input: what, Options: opts}) {
						return
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range handles {
				ids[state] = append(ids[state], h.ID)
			}
		}
		many("retrying", damaged("job", l), "fail once", engine.SubmitOptions{})
		many("scheduled", damaged("job", l), "", engine.SubmitOptions{Delay: 20 * time.Second})
		many("snoozing", damaged("job", l), "snooze", engine.SubmitOptions{})
		time.Sleep(2 * time.Second)
		many("running", damaged("job", l), "work", engine.SubmitOptions{})
		many("pending", damaged("late", l), "", engine.SubmitOptions{})
		time.Sleep(time.Second)
		states := map[string]int{}
		for _, info := range list(t, p.Engine) {
			states[info.State]++
		}
		if want := map[string]int{"retrying": each, "scheduled": 2 * each, "running": each, "pending": each}; fmt.Sprint(states) != fmt.Sprint(want) {
			t.Fatalf("before, there were %v, want %v", states, want)
		}

		began := time.Now()
		damage(t, p.nc)
		start(t, srv, "b", nil).run(engine.WorkerOptions{Slots: each}, damaged("late", l))
		for state, group := range ids {
			attempts := 1
			if state == "retrying" || state == "snoozing" {
				attempts = 2
			}
			for _, id := range group {
				info, err := p.Wait(t.Context(), id)
				if err != nil || info.State != "succeeded" || info.Attempt != attempts || len(l.started(id)) != attempts {
					t.Fatalf("%s: %+v, %v, started on %v", id, info, err, l.started(id))
				}
				if after := info.Finished.Sub(began); after > 30*time.Second {
					t.Fatalf("%s ended %v after the damage", id, after)
				}
			}
		}
		time.Sleep(time.Minute)
		for _, stream := range []string{"mr_default_work", "mr_default_timers"} {
			if n := streamInfo(t, p.nc, stream).State.Msgs; n != 0 {
				t.Errorf("%d messages are left in %s", n, stream)
			}
		}
	})
}

// damaged is a job that is in a state for a while.
func damaged(kind string, l *ledger) *engine.Job[string, string] {
	return engine.NewJob(kind, func(ctx context.Context, what string) (string, error) {
		defer l.enter(ctx)()
		first := engine.JobFrom(ctx).Attempt == 1
		switch {
		case what == "fail once" && first:
			return "", errors.New("boom")
		case what == "snooze" && first:
			return "", engine.Snooze(20 * time.Second)
		case what == "work":
			time.Sleep(20 * time.Second)
		}
		return "", nil
	}, engine.JobOptions{Retry: engine.Retry{Delay: 20 * time.Second, Jitter: -1}})
}

// list returns all jobs.
func list(t testing.TB, eng *engine.Engine) []engine.JobInfo {
	t.Helper()
	jobs, err := eng.List(t.Context(), engine.ListOptions{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clip(jobs)
}
