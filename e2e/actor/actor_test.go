package actor_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
	"github.com/millrace/millrace/engine/spec"
)

// open returns an actor with a ledger of its own.
func open(t *testing.T) (a *actor.Actor, read func() []ledger.Entry) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger")
	written, err := ledger.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { written.Close() })
	return &actor.Actor{Ledger: written, Process: "w1#1"}, func() []ledger.Entry {
		entries, err := ledger.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
}

// A job leaves its submit, and a start and an end for each attempt: the first
// snoozes, the second fails. The nonce of the last one is in the result.
func TestWork(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		a, read := open(t)
		env.Worker(a.Job("work", 0))
		load := actor.Load{Queue: "work", Prefix: "p", Count: 1, Work: actor.Work{For: 200, Snooze: 1, Fail: 1}}
		if err := a.Submit(t.Context(), env.Engine(), load); err != nil {
			t.Fatal(err)
		}
		info := env.Await("work.p0")

		var got []string
		var fence uint64
		var nonce string
		for _, e := range read() {
			got = append(got, fmt.Sprintf("%s %s%s %s %d", e.What, e.Verb, e.Outcome, e.Job, e.Attempt))
			switch e.What {
			case ledger.Start:
				if nonce = e.Nonce; e.Fence <= fence || e.Process != "w1#1" || e.Node != *info.Node || e.Queue != "work" {
					t.Errorf("got start %+v on node %s after fence %d", e, *info.Node, fence)
				}
				fence = e.Fence
			case ledger.End:
				if e.Nonce != nonce || e.Fence != fence || e.Cause != "" {
					t.Errorf("got end %+v of run %s, fence %d", e, nonce, fence)
				}
			default:
			}
		}
		want := []string{
			"call submitcreated work.p0 0",
			"start  work.p0 1", "end snoozed work.p0 1",
			"start  work.p0 2", "end failed work.p0 2",
			"start  work.p0 3", "end succeeded work.p0 3",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ledger (-want +got):\n%s", diff)
		}
		var result actor.Result
		if err := json.Unmarshal(info.Result, &result); err != nil || result.Nonce != nonce || info.Fence != fence {
			t.Errorf("got result %s and fence %d, want nonce %s and fence %d", info.Result, info.Fence, nonce, fence)
		}
	})
}

// A handler that is told to end obeys, unless it is deaf, and says why.
func TestCause(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		a, read := open(t)
		w := env.Worker(a.Job("work", 0))
		job := a.Job("work", 0)
		for id, work := range map[string]actor.Work{
			"stalls": {Stall: true}, "deaf": {For: 60_000, Deaf: true}, "stopped": {Stall: true},
		} {
			enginetest.Submit(env, job, work, engine.SubmitOptions{ID: id})
			env.AwaitState("work."+id, "running")
		}
		for _, id := range []string{"work.stalls", "work.deaf"} {
			if _, err := env.Engine().Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			env.Await(id)
		}
		cut := env.Worker(a.Job("cut", 0))
		enginetest.Submit(env, a.Job("cut", 0), actor.Work{Stall: true}, engine.SubmitOptions{ID: "off"})
		env.AwaitState("cut.off", "running")
		cut.Down()
		env.Advance(2 * env.Engine().Lease())
		w.Stop()

		var got []string
		for _, e := range read() {
			if e.What == ledger.End {
				got = append(got, fmt.Sprintf("%s %s: %s", e.Job, e.Outcome, e.Cause))
			}
		}
		slices.Sort(got)
		want := []string{"cut.off obeyed: lease lost", "work.deaf succeeded: cancelled", "work.stalls obeyed: cancelled", "work.stopped obeyed: drained"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	})
}

// A submit that gets no answer is unknown, and is tried again until there is one:
// of jobs that were created all the same it is that they were there.
func TestSubmitAgain(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		a, read := open(t)
		silent := env.Client()
		silent.Decide(func(enginetest.Write) enginetest.Fault { return enginetest.LoseAnswer })
		time.AfterFunc(12*time.Second, func() { silent.Decide(nil) })
		if err := a.Submit(t.Context(), env.Engine(), actor.Load{Queue: "work", Prefix: "p", Count: 2, Rate: 10}); err != nil {
			t.Fatal(err)
		}
		last := map[string]string{}
		for _, e := range read() {
			if last[e.Job] == "" && e.Outcome != ledger.Unknown || e.Call == 0 || e.Call > e.At || (e.Error == "") != (e.Outcome != ledger.Unknown) {
				t.Errorf("got call %+v after %q", e, last[e.Job])
			}
			last[e.Job] = e.Outcome
		}
		if diff := cmp.Diff(map[string]string{"work.p0": ledger.Attached, "work.p1": ledger.Attached}, last); diff != "" {
			t.Errorf("last calls (-want +got):\n%s", diff)
		}
	})
}

// A schedule that is applied leaves a call with its plan, and each of its jobs starts
// with its tick.
func TestKeep(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		a, read := open(t)
		env.Worker(a.Job("work", 0))
		table := actor.Timetable{Prefix: "s", Count: 2, Definition: engine.Schedule{Every: spec.Duration(time.Minute)}}
		if err := a.Keep(t.Context(), env.Engine(), table); err != nil {
			t.Fatal(err)
		}
		env.Advance(150 * time.Second)
		table.Rest = true
		if err := a.Keep(t.Context(), env.Engine(), table); err != nil {
			t.Fatal(err)
		}
		env.Advance(5 * time.Minute)

		var got []string
		for _, e := range read() {
			switch e.What {
			case ledger.Call:
				got = append(got, fmt.Sprintf("%s %s %s %t", e.Verb, e.Schedule, e.Outcome, e.Plan != nil && e.Plan.Every == time.Minute))
			case ledger.Start:
				got = append(got, fmt.Sprintf("start %s %t", e.Schedule, e.Due > 0 && e.Due%int64(time.Minute) == 0))
			default:
			}
		}
		slices.Sort(got)
		want := []string{
			"apply s0 ok true", "apply s1 ok true", "pause s0 ok false", "pause s1 ok false",
			"start s0 true", "start s0 true", "start s1 true", "start s1 true",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ledger (-want +got):\n%s", diff)
		}
	})
}

// Edits of all kinds are made again until they are certain, also while the server is
// away, and those of old revisions are refused.
func TestKeepEdits(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		a, read := open(t)
		silent := env.Client()
		time.AfterFunc(time.Minute, silent.Down)
		time.AfterFunc(2*time.Minute, silent.Up)
		table := actor.Timetable{
			Prefix: "s", Count: 3, Definition: engine.Schedule{Every: spec.Duration(time.Hour)}, Edits: 1, For: 5 * time.Minute,
		}
		if err := a.Keep(t.Context(), env.Engine(), table); err != nil {
			t.Fatal(err)
		}
		last, verbs := map[string]ledger.Entry{}, map[string]int{}
		for _, e := range read() {
			if was := last[e.Schedule]; was.Outcome == ledger.Unknown && was.Verb != e.Verb {
				t.Errorf("%s of %s follows %s, which is not certain", e.Verb, e.Schedule, was.Verb)
			}
			last[e.Schedule] = e
			verbs[e.Verb]++
			verbs[e.Outcome]++
		}
		for _, verb := range []string{ledger.Apply, ledger.Pause, ledger.Resume, ledger.Delete, ledger.Unknown} {
			if verbs[verb] == 0 {
				t.Errorf("got no %s among %v", verb, verbs)
			}
		}
	})
}
