package bench_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/millrace/bench"
	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

// A measurement counts what it did on both sides.
func TestBenchThroughput(t *testing.T) {
	t.Parallel()
	srv, err := embedded.Start(t.Context(), embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	got, err := bench.Throughput(t.Context(), nc, bench.Options{Duration: time.Minute, Jobs: 300, Slots: 16})
	if err != nil {
		t.Fatal(err)
	}
	if got.Jobs != 300 || got.Rounds < 2 || len(got.All) != got.Rounds || len(got.Limits) != got.Rounds || got.JobsPerS <= 0 || got.LimitPerS <= 0 || got.Ratio <= 0 {
		t.Errorf("got %+v, want rounds of 300 jobs with speeds", got)
	}
}
