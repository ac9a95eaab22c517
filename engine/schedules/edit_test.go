package schedules_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
)

func TestApply(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		apply := func(s spec.Schedule, dry bool, want spec.Applied) {
			t.Helper()
			got := must(p.Apply(t.Context(), s, dry))(t)
			want.Key, want.Revision = "schedule.hourly", got.Revision
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if e, err := p.stored.Get(t.Context(), "schedule.hourly"); err == nil && e.Revision != got.Revision {
				t.Errorf("it says revision %d, and %d is there", got.Revision, e.Revision)
			}
		}
		apply(hourly, true, spec.Applied{Action: spec.Created})
		if _, err := p.Get(t.Context(), "hourly"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a dry run leaves %v", err)
		}
		apply(hourly, false, spec.Applied{Action: spec.Created})
		apply(hourly, false, spec.Applied{Action: spec.Unchanged})
		other := hourly
		other.Cron = "30 * * * *"
		changes := []spec.Change{{Field: "cron", Old: "0 * * * *", New: "30 * * * *"}}
		apply(other, true, spec.Applied{Action: spec.Changed, Changes: changes})
		apply(other, false, spec.Applied{Action: spec.Changed, Changes: changes})

		bad := hourly
		bad.Cron = "0 0 30 2 *"
		if _, err := p.Apply(t.Context(), bad, false); err == nil {
			t.Error("a schedule that never ticks is taken")
		}
		if err := p.Delete(t.Context(), "hourly", schedules.EditOptions{}); err != nil {
			t.Error(err)
		}
		if err := p.Delete(t.Context(), "hourly", schedules.EditOptions{}); !errors.Is(err, schedules.ErrNotFound) {
			t.Errorf("deleted again: %v", err)
		}
	})
}

// Ticks are due since a schedule was created, resumed, or given another calendar;
// nothing else changes that. Its life begins when it is created.
func TestSince(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		ctx, whichever := t.Context(), schedules.EditOptions{}
		born := p.apply(hourly).Stored
		p.begins("hourly", born, born)
		later := func() { time.Sleep(90 * time.Minute) }

		later()
		s := hourly
		s.Input, s.MaxAttempts, s.Note = []byte(`{"full":true}`), 3, "all of it"
		p.apply(s)
		p.begins("hourly", born, born)

		later()
		must(p.Pause(ctx, "hourly", whichever))(t)
		p.begins("hourly", born, born)
		later()
		must(p.Resume(ctx, "hourly", whichever))(t)
		resumed := p.definition("hourly").Stored
		p.begins("hourly", born, resumed)

		later()
		must(p.Resume(ctx, "hourly", whichever))(t) // halted, maybe
		again := p.definition("hourly").Stored
		if again.Equal(resumed) {
			t.Error("to resume wrote nothing")
		}
		p.begins("hourly", born, again)

		later()
		s.Cron = "30 * * * *"
		changed := p.apply(s).Stored
		p.begins("hourly", born, changed)

		later()
		s.Paused = new(true)
		p.apply(s)
		p.begins("hourly", born, changed)
		later()
		s.Paused = new(false)
		again = p.apply(s).Stored
		p.begins("hourly", born, again)

		must(0, p.Delete(ctx, "hourly", whichever))(t)
		later()
		reborn := p.apply(hourly).Stored
		p.begins("hourly", reborn, reborn)
	})
}

// What applying a file does not say about the pause, it leaves, and why.
func TestApplyKeepsPause(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		ctx := t.Context()
		is := func(paused bool, note string) {
			t.Helper()
			if got := p.definition("hourly").Value; got.IsPaused() != paused || got.Note != note {
				t.Errorf("paused is %v, because of %q, want %v and %q", got.IsPaused(), got.Note, paused, note)
			}
		}
		p.apply(hourly)
		must(p.Pause(ctx, "hourly", schedules.EditOptions{Note: "the bank is closed"}))(t)
		is(true, "the bank is closed")
		must(p.Pause(ctx, "hourly", schedules.EditOptions{}))(t)
		is(true, "the bank is closed")
		p.apply(hourly)
		is(true, "the bank is closed")
		s := hourly
		s.Note = "of ann"
		p.apply(s)
		is(true, "of ann")
		resumed := must(p.Resume(ctx, "hourly", schedules.EditOptions{}))(t)
		is(false, "")
		must(p.Pause(ctx, "hourly", schedules.EditOptions{}))(t)
		resumed.Revision = 0
		p.apply(resumed) // what resume has returned says nothing of pauses
		is(true, "")
		must(p.Resume(ctx, "hourly", schedules.EditOptions{}))(t)
		is(false, "")
		p.apply(hourly)
		is(false, "")
		s.Paused = new(true)
		p.apply(s)
		is(true, "of ann")
		s.Paused = new(false)
		p.apply(s)
		is(false, "of ann")
	})
}

// An edit of a revision that is not there changes nothing and says what is there.
func TestConflict(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		ctx := t.Context()
		first := p.apply(hourly).Revision
		s := hourly
		s.Cron, s.Revision = "30 * * * *", first
		second := p.apply(s).Revision

		edits := map[string]func(revision uint64) error{
			"apply": func(revision uint64) error {
				s.Cron, s.Revision = "45 * * * *", revision
				_, err := p.Apply(ctx, s, false)
				return err
			},
			"dry run": func(revision uint64) error {
				s.Cron, s.Revision = "45 * * * *", revision
				_, err := p.Apply(ctx, s, true)
				return err
			},
			"pause": func(revision uint64) error {
				_, err := p.Pause(ctx, "hourly", schedules.EditOptions{Revision: revision})
				return err
			},
			"resume": func(revision uint64) error {
				_, err := p.Resume(ctx, "hourly", schedules.EditOptions{Revision: revision})
				return err
			},
			"delete": func(revision uint64) error {
				return p.Delete(ctx, "hourly", schedules.EditOptions{Revision: revision})
			},
		}
		for verb, edit := range edits {
			var conflict *schedules.ConflictError
			if err := edit(first); !errors.Is(err, schedules.ErrConflict) || !errors.As(err, &conflict) {
				t.Errorf("%s: got %v, want a conflict", verb, err)
				continue
			}
			if conflict.Revision != second || conflict.Expected != first || conflict.Current.Revision != second || conflict.Current.Cron != "30 * * * *" {
				t.Errorf("%s: got %+v, with %+v", verb, conflict, conflict.Current)
			}
		}
		if now := p.definition("hourly").Revision; now != second {
			t.Errorf("it is at revision %d, want %d", now, second)
		}
		s.Cron, s.Revision = "30 * * * *", first // what is there already
		if got := must(p.Apply(ctx, s, false))(t); got.Action != spec.Unchanged {
			t.Errorf("the same again is %s", got.Action)
		}
		for _, verb := range []string{"dry run", "pause", "resume", "apply", "delete"} {
			revision := p.definition("hourly").Revision
			if err := edits[verb](revision); err != nil {
				t.Errorf("%s: %v", verb, err)
			}
		}
		err := edits["apply"](second)
		if !errors.Is(err, schedules.ErrConflict) || !strings.Contains(err.Error(), "it is not there") {
			t.Errorf("an edit of what was deleted: %v", err)
		}
		for _, verb := range []string{"pause", "resume", "delete"} {
			if err := edits[verb](0); !errors.Is(err, schedules.ErrNotFound) {
				t.Errorf("%s what is not there: %v", verb, err)
			}
		}
	})
}

// Many who edit one schedule at once: who says the revision that he read never
// undoes what another one did, and nobody's edit is lost.
func TestEditorsAtOnce(t *testing.T) {
	t.Parallel()
	const editors, each = 4, 10
	srv := natstest.Start(t, t.TempDir())
	p := join(t, natstest.Connect(t, srv))
	p.apply(hourly)
	var wg sync.WaitGroup
	for n := range editors {
		p := join(t, natstest.Connect(t, srv))
		wg.Go(func() {
			for done := 0; done < each; {
				info := must(p.Get(t.Context(), "hourly"))(t)
				s := *info.Definition
				s.MaxRuns, s.Note = s.MaxRuns+1, fmt.Sprint("editor ", n) // no two say the same
				switch _, err := p.Apply(t.Context(), s, false); {
				case err == nil:
					done++
				case !errors.Is(err, schedules.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := p.definition("hourly").Value.MaxRuns; got != editors*each {
		t.Errorf("%d edits are there, want %d", got, editors*each)
	}
}

// What people put there by hand is read if it can be. What cannot be used is shown
// and can be replaced and deleted, but is no ground for a change.
func TestByHand(t *testing.T) {
	bubble(t, func(t *testing.T, p *process, _ *server.Server) {
		ctx := t.Context()
		put := func(schedule, text string) {
			t.Helper()
			must(p.raw().Create(ctx, "schedule."+schedule, []byte(text)))(t)
		}
		put("good", `{"name": "good", "every": "1h", "job": "a.b", "paused": true}`)
		put("bad", `{"name": "bad", "every": 7}`)
		put("other", `{"name": "another", "every": "1h", "job": "a.b"}`)
		put("short", `{"kind": "Schedule", "name": "short", "every": "1ms", "job": "a.b"}`)
		if info := must(p.Get(ctx, "good"))(t); info.State != schedules.Paused || info.Kind != "a.b" {
			t.Errorf("got %+v", info)
		}
		must(p.Resume(ctx, "good", schedules.EditOptions{}))(t)
		for schedule, want := range map[string]string{
			"bad": "it is no schedule in JSON", "other": `its name is "another"`, "short": "every is 1ms",
		} {
			if info := must(p.Get(ctx, schedule))(t); info.State != schedules.Unusable || !strings.Contains(info.Problem, want) || info.Name != schedule {
				t.Errorf("%s: got %+v, want %s", schedule, info, want)
			}
			_, pause := p.Pause(ctx, schedule, schedules.EditOptions{})
			_, next := p.Next(ctx, schedule, 1)
			_, fill := p.Backfill(ctx, schedule, time.Now().Add(-time.Hour), time.Now())
			for _, err := range []error{pause, next, fill} {
				if !errors.Is(err, schedules.ErrUnusable) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: got %v, want %s", schedule, err, want)
				}
			}
		}
		s := hourly
		s.Name = "bad"
		if got := must(p.Apply(ctx, s, false))(t); got.Action != spec.Changed {
			t.Errorf("replaced: %+v", got)
		}
		must(p.Pause(ctx, "bad", schedules.EditOptions{}))(t)
		if err := p.Delete(ctx, "other", schedules.EditOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// Whatever becomes of a write, an edit has happened once it returns, once; if it
// says that it does not know, making it again settles it.
func TestWriteFaults(t *testing.T) {
	edits := map[string]func(context.Context, *process) error{
		"create": func(ctx context.Context, p *process) error {
			s := hourly
			s.Name = "new"
			_, err := p.Apply(ctx, s, false)
			return err
		},
		"pause": func(ctx context.Context, p *process) error {
			_, err := p.Pause(ctx, "hourly", schedules.EditOptions{})
			return err
		},
		"delete": func(ctx context.Context, p *process) error {
			err := p.Delete(ctx, "hourly", schedules.EditOptions{})
			if errors.Is(err, schedules.ErrNotFound) {
				return nil
			}
			return err
		},
	}
	for verb, edit := range edits {
		for _, fault := range []natstest.Fault{
			natstest.CutBefore, natstest.CutAfter, natstest.LoseAnswer, natstest.Hold, natstest.DownBefore, natstest.DownAfter,
		} {
			t.Run(verb+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, p *process, srv *server.Server) {
					p.apply(hourly)
					link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
						if w.Number == 1 {
							return fault
						}
						return natstest.Pass
					}, configWrites)
					faulty := join(t, link.Connect(t))
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					if err := edit(ctx, faulty); err != nil {
						if !errors.Is(err, publish.ErrUnknown) {
							t.Fatal(err)
						}
						link.Up()
						link.Release()
						time.Sleep(time.Minute)
						if err := edit(t.Context(), faulty); err != nil {
							t.Fatal(err)
						}
					}
					link.Release()
					time.Sleep(time.Minute)
					p.check(verb)
				})
			})
		}
	}
}

// check checks what an edit has left.
func (p *process) check(verb string) {
	p.t.Helper()
	there := map[string]schedules.State{}
	for _, s := range must(p.List(p.t.Context(), schedules.ListOptions{}))(p.t) {
		there[s.Name] = s.State
	}
	want := map[string]map[string]schedules.State{
		"create": {"hourly": schedules.Active, "new": schedules.Active},
		"pause":  {"hourly": schedules.Paused},
		"delete": {},
	}[verb]
	if d := cmp.Diff(want, there); d != "" {
		p.t.Errorf("(-want +got):\n%s", d)
	}
}
