package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

type benchCmd struct {
	Throughput benchThroughputCmd `cmd:"" help:"Measure no-op jobs a second, and what the same messages by hand would be."`
}

type benchThroughputCmd struct {
	Duration time.Duration `help:"How long to measure, about." default:"15s"`
	Jobs     int           `help:"How many jobs to run in each round, instead of a duration." placeholder:"N"`
	Slots    int           `help:"How many handlers run at once." default:"256"`
	Payload  int           `help:"Bytes of input in each job." default:"0" placeholder:"BYTES"`
}

// embeddedServer is what --server says for a server in this process.
const embeddedServer = "embedded"

// Run measures, on a server in this process unless another one is named.
func (c *benchThroughputCmd) Run(ctx context.Context, e *env) error {
	o := benchOptions{Duration: c.Duration, Jobs: c.Jobs, Slots: c.Slots, Payload: c.Payload}
	if err := o.validate(); err != nil {
		return usage(err)
	}
	nc, shut, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer shut()
	if e.given && e.Server != embeddedServer {
		o.Domain = e.JSDomain
	}
	result, err := benchThroughput(ctx, nc, o)
	if err != nil {
		return fmt.Errorf("measure throughput: %w", err)
	}
	if e.Output == "json" {
		return json.NewEncoder(e.stdout).Encode(result)
	}
	result.write(e.stdout)
	return nil
}

func (c *benchThroughputCmd) connect(ctx context.Context, e *env) (nc *nats.Conn, shut func(), err error) {
	if e.given && e.Server != embeddedServer {
		nc, err := e.dial(quiet())
		if err != nil {
			return nil, nil, err
		}
		return nc, nc.Close, nil
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, nil, err
	}
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir, Logger: quiet()})
	if err == nil {
		nc, err = srv.Connect(engine.ConnectOptions()...)
	}
	shut = func() {
		if nc != nil {
			nc.Close()
		}
		if srv != nil {
			srv.Close()
		}
		_ = os.RemoveAll(dir) // a temporary folder that stays does no harm
	}
	if err != nil {
		shut()
		return nil, nil, err
	}
	return nc, shut, nil
}

// benchOptions says what a measurement of throughput is to do.
type benchOptions struct {
	Duration time.Duration // for all rounds together, about
	Jobs     int           // in a round; 0 makes rounds that fit the duration
	Slots    int
	Payload  int    // bytes of input
	Domain   string // of JetStream
}

func (o benchOptions) validate() error {
	switch {
	case o.Duration <= 0:
		return fmt.Errorf("--duration is %v: use a positive one", o.Duration)
	case o.Jobs < 0:
		return fmt.Errorf("--jobs is %d: use 1 or more", o.Jobs)
	case o.Slots < 1:
		return fmt.Errorf("--slots is %d: use 1 or more", o.Slots)
	case o.Payload < 0:
		return fmt.Errorf("--payload is %d: use 0 or more", o.Payload)
	}
	return nil
}

// benchResult is what a measurement of throughput finds: the medians of its
// rounds.
type benchResult struct {
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
	benchRounds    = 5     // of each side
	benchWarmUp    = 2_000 // jobs of the round that is not counted
	benchNamespace = "bench"
)

// benchThroughput runs no-op jobs through the public API, and the same writes,
// deliveries and acknowledgements by hand, in alternating rounds on one server.
func benchThroughput(ctx context.Context, nc *nats.Conn, o benchOptions) (benchResult, error) {
	eng, err := engine.Connect(ctx, nc, engine.Options{Namespace: benchNamespace, Domain: o.Domain, Logger: quiet()})
	if err != nil {
		return benchResult{}, err
	}
	defer eng.Close()
	pub, err := publish.New(nc, publish.Options{Domain: o.Domain})
	if err != nil {
		return benchResult{}, err
	}
	defer pub.Close()
	js, err := pub.JetStream()
	if err != nil {
		return benchResult{}, err
	}
	defer forget(js)
	raw, err := newRawLimit(ctx, pub, js, o.Payload)
	if err != nil {
		return benchResult{}, err
	}
	defer raw.close()
	jobs, err := newBenchJobs(ctx, eng, js, o)
	if err != nil {
		return benchResult{}, err
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
	ns := streams.Namespace(benchNamespace)
	for _, name := range append(ns.Streams(), rawRecords, rawItems) {
		_ = js.DeleteStream(ctx, name) // a later measurement uses or deletes it
	}
}

// round runs n jobs and returns how many it did in a second.
type round func(ctx context.Context, n int) (float64, error)

// alternate runs rounds of both sides in turn, after one that is not counted.
func alternate(ctx context.Context, o benchOptions, jobs, limit round) (benchResult, error) {
	speed, err := jobs(ctx, benchWarmUp)
	if err != nil {
		return benchResult{}, err
	}
	limitSpeed, err := limit(ctx, benchWarmUp)
	if err != nil {
		return benchResult{}, err
	}
	r := benchResult{Jobs: o.Jobs, Rounds: benchRounds}
	if r.Jobs == 0 {
		both := 1/speed + 1/limitSpeed // seconds for a job of each side
		r.Jobs = max(benchWarmUp, int(o.Duration.Seconds()/benchRounds/both))
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

// write prints the result for people.
func (r benchResult) write(w io.Writer) {
	fmt.Fprintf(w, "%d rounds of %d no-op jobs, %d slots, %d bytes of input, nats-server %s\n", r.Rounds, r.Jobs, r.Slots, r.Payload, r.Server)
	fmt.Fprintf(w, "jobs, submit to acknowledgement   %8.0f jobs/s\n", r.JobsPerS)
	fmt.Fprintf(w, "the same messages by hand         %8.0f jobs/s\n", r.LimitPerS)
	fmt.Fprintf(w, "ratio                             %8.2f\n", r.Ratio)
}

// benchJobs is the side of the public API: one submitter and one worker.
type benchJobs struct {
	eng     *engine.Engine
	job     *engine.Job[string, struct{}]
	input   string
	handled chan struct{}
	work    jetstream.Stream
	cancel  context.CancelFunc
	ended   chan error
}

func newBenchJobs(ctx context.Context, eng *engine.Engine, js jetstream.JetStream, o benchOptions) (*benchJobs, error) {
	work, err := js.Stream(ctx, streams.Namespace(benchNamespace).WorkStream())
	if err != nil {
		return nil, err
	}
	b := &benchJobs{eng: eng, work: work, input: strings.Repeat("x", o.Payload), ended: make(chan error, 1), handled: make(chan struct{}, 1<<16)}
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

func (b *benchJobs) stop() error {
	b.cancel()
	return <-b.ended
}

func (b *benchJobs) round(ctx context.Context, n int) (float64, error) {
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

func (b *benchJobs) submissions(n int) iter.Seq[engine.Submission[string]] {
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
