package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

// A night passes, on a virtual clock, and has its report.
func TestSchedule(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) { // it is 2000-01-01, midnight in UTC
		env.Worker(Report)
		if err := Schedule(t.Context(), env.Engine()); err != nil {
			t.Fatal(err)
		}
		if jobs := reports(t, env); len(jobs) > 0 {
			t.Errorf("before its time: %v", jobs)
		}
		env.Advance(2*time.Hour + time.Minute)
		want := map[string]string{
			"2000-01-01 02:00:00": `"the report until 2000-01-01T02:00:00Z"`, // 3:00 in Berlin
		}
		if d := cmp.Diff(want, reports(t, env)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}, enginetest.Options{Lease: 10 * time.Minute})
}

// reports returns the results of the jobs, by their ticks.
func reports(t *testing.T, env *enginetest.Env) map[string]string {
	t.Helper()
	jobs, err := env.Engine().List(t.Context(), engine.ListOptions{Kind: Report.Kind()})
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for _, j := range jobs {
		results[j.Due.Format(time.DateTime)] = string(j.Result)
	}
	return results
}

func TestRun(t *testing.T) {
	t.Parallel()
	if err := run(t.Context()); err != nil {
		t.Error(err)
	}
}
