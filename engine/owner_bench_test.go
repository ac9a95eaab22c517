package engine_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// BenchmarkOwner tells what the owner costs a worker at full speed: jobs a second
// without an owner and with one, in turns, and the ratio of the medians. Each
// run lasts longer than the reconciler stays behind. Use -benchtime 5x or so.
func BenchmarkOwner(b *testing.B) {
	var alone, owned []float64
	for b.Loop() {
		alone = append(alone, fullSpeed(b, true))
		owned = append(owned, fullSpeed(b, false))
	}
	slices.Sort(alone)
	slices.Sort(owned)
	without, with := alone[len(alone)/2], owned[len(owned)/2]
	b.ReportMetric(without, "jobs/s-alone")
	b.ReportMetric(with, "jobs/s-owned")
	b.ReportMetric(with/without, "ratio")
}

// fullSpeed submits jobs and runs them for 30 s, and returns how many ended a
// second.
func fullSpeed(b *testing.B, noOwner bool) float64 {
	b.Helper()
	srv := natstest.Start(b, b.TempDir())
	eng := connect(b, srv)
	job := engine.NewJob("noop", func(context.Context, int) (int, error) { return 0, nil })
	stop := work(b, eng, engine.WorkerOptions{Slots: 256, NoOwner: noOwner}, job)
	defer stop()
	const chunk = 4096
	done, began := 0, time.Now()
	for time.Since(began) < 30*time.Second {
		handles, err := job.SubmitMany(b.Context(), eng, func(yield func(engine.Submission[int]) bool) {
			for i := range chunk {
				if !yield(engine.Submission[int]{Input: i, Options: engine.SubmitOptions{ID: fmt.Sprintf("%d-%d", done, i)}}) {
					return
				}
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := handles[len(handles)-1].Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		done += chunk
	}
	return float64(done) / time.Since(began).Seconds()
}
