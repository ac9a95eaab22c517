package enginetest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

// Every fault does to a claim what it says.
func TestFaults(t *testing.T) {
	tests := []struct {
		fault              enginetest.Fault
		node               string
		attempts, failures int
		written            string
	}{
		{enginetest.Pass, "worker-1", 1, 0, "[1 jobs where.1 running 2 jobs where.1 succeeded]"},
		{enginetest.CutBefore, "worker-1", 1, 0, "[1 jobs where.1 running (cut before) 2 jobs where.1 running 3 jobs where.1 succeeded]"},
		{enginetest.CutAfter, "worker-1", 1, 0, "[1 jobs where.1 running (cut after) 2 jobs where.1 succeeded]"},
		{enginetest.LoseAnswer, "worker-1", 1, 0, "[1 jobs where.1 running (lose answer) 2 jobs where.1 succeeded]"},
		{enginetest.KillBefore, "worker-2", 1, 0, "[1 jobs where.1 running (kill before)]"},
		{enginetest.KillAfter, "worker-2", 2, 1, "[1 jobs where.1 running (kill after)]"},
	}
	for _, test := range tests {
		t.Run(test.fault.String(), func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
				worker := env.Worker(where)
				worker.AtWrite(1, test.fault)
				id := enginetest.Submit(env, where, 0, id1).ID
				env.Advance(0)
				env.Worker(where)
				succeeded(t, env, id, test.node, test.attempts, test.failures)
				if got := fmt.Sprint(worker.Writes()); got != test.written {
					t.Errorf("wrote %s, want %s", got, test.written)
				}
			})
		})
	}
}

// A submitter may lose the answer to any of its writes, or die after it: who
// submits again under the same ID attaches to the job.
func TestFaultsOfClient(t *testing.T) {
	for _, fault := range []enginetest.Fault{enginetest.LoseAnswer, enginetest.CutAfter, enginetest.CutBefore} {
		for n := 1; n <= 2; n++ {
			t.Run(fmt.Sprint(fault, " ", n), func(t *testing.T) {
				enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
					env.Client().AtWrite(n, fault)
					h, err := noop.Submit(t.Context(), env.Engine(), 1, id1)
					if err != nil {
						h = enginetest.Submit(env, noop, 1, id1)
					}
					env.Worker(noop)
					if got := enginetest.Result(env, h); got != 0 {
						t.Errorf("got %d", got)
					}
				})
			})
		}
	}
}

// A test can decide each write by what it is, and see all of them.
func TestDecide(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		worker := env.Worker(noop)
		worker.Decide(func(w enginetest.Write) enginetest.Fault {
			if w.Asset == "jobs" && w.State == "succeeded" && w.Number < 4 {
				return enginetest.CutBefore
			}
			return enginetest.Pass
		})
		env.Await(enginetest.Submit(env, noop, 1, id1).ID)
		want := []enginetest.Write{
			{Number: 1, Asset: "jobs", Job: "noop.1", State: "running", Subject: "$KV.mr_default_jobs.noop.1"},
			{Number: 2, Asset: "jobs", Job: "noop.1", State: "succeeded", Subject: "$KV.mr_default_jobs.noop.1", Fault: enginetest.CutBefore},
			{Number: 3, Asset: "jobs", Job: "noop.1", State: "succeeded", Subject: "$KV.mr_default_jobs.noop.1", Fault: enginetest.CutBefore},
			{Number: 4, Asset: "jobs", Job: "noop.1", State: "succeeded", Subject: "$KV.mr_default_jobs.noop.1"},
		}
		if d := cmp.Diff(want, worker.Writes()); d != "" {
			t.Errorf("writes (-want +got):\n%s", d)
		}
		worker.Decide(nil)
		env.Await(enginetest.Submit(env, noop, 1).ID)
	})
}

// Writes say what they are about, whatever asset they go to.
func TestWrites(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		from := len(env.Client().Writes())
		enginetest.Submit(env, noop, 1, engine.SubmitOptions{ID: "now"})
		later := engine.SubmitOptions{ID: "later", Delay: time.Hour}
		enginetest.Submit(env, noop, 1, later)
		if _, err := env.Engine().Cancel(t.Context(), "noop.now"); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range env.Client().Writes()[from:] {
			_, what, _ := strings.Cut(w.String(), " ")
			got = append(got, what)
		}
		want := []string{
			"jobs noop.now pending", "work noop.now", "jobs noop.later scheduled", "timers noop.later",
			"jobs noop.now cancelled", "work delete",
		}
		for _, what := range want {
			if !slices.Contains(got, what) {
				t.Errorf("%q is not among the writes %q", what, got)
			}
		}
	})
}
