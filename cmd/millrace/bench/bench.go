// Package bench measures what a server and this machine can do: jobs through the
// public API, and the same messages by hand, which is the limit.
//
// Start reading at [Throughput].
package bench

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Options says what a measurement of throughput is to do.
type Options struct {
	Duration time.Duration // for all rounds together, about
	Jobs     int           // in a round; 0 makes rounds that fit the duration
	Slots    int           // of the worker
	Payload  int           // bytes of input
	Domain   string        // of JetStream
}

// Result is what a measurement of throughput finds: the medians of its
// rounds.
type Result struct {
	JobsPerS  float64   `json:"jobs_per_s"`
	LimitPerS float64   `json:"limit_per_s"`
	Ratio     float64   `json:"ratio"`
	Rounds    int       `json:"rounds"`
	Jobs      int       `json:"jobs"` // in each round
	Slots     int       `json:"slots"`
	Payload   int       `json:"payload_bytes"`
	Server    string    `json:"server"`
	All       []float64 `json:"all_jobs_per_s"`
	Limits    []float64 `json:"all_limits_per_s"`
}

const (
	rounds    = 5     // of each side
	warmUp    = 2_000 // jobs of the round that is not counted
	namespace = "bench"
)

// Throughput runs no-op jobs through the public API, and the same writes,
// deliveries and acknowledgements by hand, in alternating rounds on one server.
func Throughput(ctx context.Context, nc *nats.Conn, o Options) (Result, error) {
	eng, err := engine.Connect(ctx, nc, engine.Options{Namespace: namespace, Domain: o.Domain, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return Result{}, err
	}
	defer eng.Close()
	pub, err := publish.New(nc, publish.Options{Domain: o.Domain})
	if err != nil {
		return Result{}, err
	}
	defer pub.Close()
	js, err := pub.JetStream()
	if err != nil {
		return Result{}, err
	}
	defer forget(js)
	raw, err := newRawLimit(ctx, pub, js, o.Payload)
	if err != nil {
		return Result{}, err
	}
	defer raw.close()
	jobs, err := newNoops(ctx, eng, js, o)
	if err != nil {
		return Result{}, err
	}
	result, err := alternate(ctx, o, jobs.round, raw.round)
	result.Slots, result.Payload, result.Server = o.Slots, o.Payload, nc.ConnectedServerVersion()
	if stopErr := jobs.stop(); err == nil {
		err = stopErr
	}
	return result, err
}

// forget deletes what the measurement made, so that a server is left as it was.
func forget(js jetstream.JetStream) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ns := streams.Namespace(namespace)
	for _, name := range append(ns.Streams(), rawRecords, rawItems) {
		_ = js.DeleteStream(ctx, name) // a later measurement uses or deletes it
	}
}

// round runs n jobs and returns how many it did in a second.
type round func(ctx context.Context, n int) (float64, error)

// alternate runs rounds of both sides in turn, after one that is not counted.
func alternate(ctx context.Context, o Options, jobs, limit round) (Result, error) {
	speed, err := jobs(ctx, warmUp)
	if err != nil {
		return Result{}, err
	}
	limitSpeed, err := limit(ctx, warmUp)
	if err != nil {
		return Result{}, err
	}
	r := Result{Jobs: o.Jobs, Rounds: rounds}
	if r.Jobs == 0 {
		both := 1/speed + 1/limitSpeed // seconds for a job of each side
		r.Jobs = max(warmUp, int(o.Duration.Seconds()/rounds/both))
	}
	for range r.Rounds {
		speed, err := jobs(ctx, r.Jobs)
		if err != nil {
			return r, err
		}
		limitSpeed, err := limit(ctx, r.Jobs)
		if err != nil {
			return r, err
		}
		r.All, r.Limits = append(r.All, speed), append(r.Limits, limitSpeed)
	}
	r.JobsPerS, r.LimitPerS = median(r.All), median(r.Limits)
	r.Ratio = r.JobsPerS / r.LimitPerS
	return r, nil
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// Write prints the result for people.
func (r Result) Write(w io.Writer) {
	fmt.Fprintf(w, "%d rounds of %d no-op jobs, %d slots, %d bytes of input, nats-server %s\n", r.Rounds, r.Jobs, r.Slots, r.Payload, r.Server)
	fmt.Fprintf(w, "jobs, submit to acknowledgement   %8.0f jobs/s\n", r.JobsPerS)
	fmt.Fprintf(w, "the same messages by hand         %8.0f jobs/s\n", r.LimitPerS)
	fmt.Fprintf(w, "ratio                             %8.2f\n", r.Ratio)
}

// noops is the side of the public API: one submitter and one worker.
type noops struct {
	eng     *engine.Engine
	job     *engine.Job[string, struct{}]
	input   string
	handled chan struct{}
	work    jetstream.Stream
	cancel  context.CancelFunc
	ended   chan error
}

func newNoops(ctx context.Context, eng *engine.Engine, js jetstream.JetStream, o Options) (*noops, error) {
	work, err := js.Stream(ctx, streams.Namespace(namespace).WorkStream())
	if err != nil {
		return nil, err
	}
	b := &noops{eng: eng, work: work, input: strings.Repeat("x", o.Payload), ended: make(chan error, 1), handled: make(chan struct{}, 1<<16)}
	b.job = engine.NewJob("bench.noop", func(context.Context, string) (struct{}, error) {
		b.handled <- struct{}{}
		return struct{}{}, nil
	})
	worker, err := eng.Worker(engine.WorkerOptions{Slots: o.Slots}, b.job)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	b.cancel = cancel
	go func() { b.ended <- worker.Run(running) }()
	return b, nil
}

func (b *noops) stop() error {
	b.cancel()
	return <-b.ended
}

func (b *noops) round(ctx context.Context, n int) (float64, error) {
	start := time.Now()
	submitted := make(chan error, 1)
	go func() {
		_, err := b.job.SubmitMany(ctx, b.eng, b.submissions(n))
		submitted <- err
	}()
	for range n {
		select {
		case <-b.handled:
		case err := <-b.ended:
			b.ended <- err
			return 0, fmt.Errorf("the worker ended during the measurement: %w", err)
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	if err := <-submitted; err != nil {
		return 0, err
	}
	if err := emptied(ctx, b.work); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func (b *noops) submissions(n int) iter.Seq[engine.Submission[string]] {
	return func(yield func(engine.Submission[string]) bool) {
		for range n {
			if !yield(engine.Submission[string]{Input: b.input}) {
				return
			}
		}
	}
}

// emptied waits until every item of a stream has been acknowledged.
func emptied(ctx context.Context, stream jetstream.Stream) error {
	for {
		info, err := stream.Info(ctx)
		if err != nil {
			return fmt.Errorf("look at stream %s: %w", stream.CachedInfo().Config.Name, err)
		}
		if info.State.Msgs == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}
