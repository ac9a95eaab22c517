package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// scrape returns all numbers that a registry has, by name and labels; of a
// histogram, how often it was observed.
func scrape(t testing.TB, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "namespace" {
					labels = append(labels, l.GetValue())
				}
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			numbers[strings.TrimPrefix(family.GetName(), "millrace_")+" "+strings.Join(labels, " ")] = value
		}
	}
	return numbers
}

// counted fails the test unless the numbers are there.
func counted(t testing.TB, registry *prometheus.Registry, want map[string]float64) {
	t.Helper()
	got := scrape(t, registry)
	for name, n := range want {
		if value, ok := got[name]; !ok || value != n {
			t.Errorf("%s is %v (there: %v), want %v", name, value, ok, n)
		}
	}
}

// watched opens an engine that shows its metrics.
func watched(t testing.TB, srv *server.Server, node string) (*process, *prometheus.Registry) {
	t.Helper()
	p := &process{t: t, link: natstest.NewLink(t, srv, nil, jobWrites)}
	p.nc = p.link.Connect(t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	registry := prometheus.NewRegistry()
	eng, err := engine.Connect(t.Context(), p.nc, engine.Options{Node: node, Logger: slog.New(slog.DiscardHandler), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	p.Engine = eng
	return p, registry
}

// A process counts what it does; the owner tells how many jobs there are.
func TestMetrics(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, registry := watched(t, srv, "a")
		release := make(chan struct{})
		p.run(engine.WorkerOptions{Slots: 2},
			engine.NewJob("good", func(context.Context, any) (any, error) { return nil, nil }),
			engine.NewJob("bad", func(context.Context, any) (any, error) { return nil, errors.New("boom") },
				engine.JobOptions{MaxAttempts: 2, Retry: engine.Retry{Delay: time.Second}}),
			engine.NewJob("slow", func(context.Context, any) (any, error) { <-release; return nil, nil }),
			engine.NewJob("nap", func(context.Context, any) (any, error) { return nil, engine.Snooze(time.Hour) }),
		)
		submit(t, p.Engine, "slow", 1)
		submit(t, p.Engine, "good", 3)
		submit(t, p.Engine, "bad", 1)
		submit(t, p.Engine, "nap", 2)
		submit(t, p.Engine, "nobody", 4)
		if _, err := p.Submit(t.Context(), "slow", nil, engine.SubmitOptions{ID: "later", Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		counted(t, registry, map[string]float64{
			"ready ": 1, "owner ": 1, "slots ": 2, "slots_used ": 1,
			"jobs_submitted_total good": 3, "jobs_submitted_total nobody": 4,
			"jobs_ended_total good succeeded": 3, "jobs_ended_total bad failed": 1,
			"attempts_total good succeeded": 3, "attempts_total bad failed": 2, "attempts_total nap returned": 2,
			"job_start_delay_seconds good": 3, "job_start_delay_seconds bad": 1, "attempt_duration_seconds bad": 2,
			"attempts_in_flight slow": 1, "attempts_in_flight good": 0,
			"jobs slow running": 1, "jobs slow delayed": 1, "jobs nap delayed": 2, "jobs nobody pending": 4,
			"queue_items_taken slow": 1, "queue_items_waiting slow": 0,
			"lease_losses_total ": 0, "reconciled_total item": 0, "reconciled_total node": 0,
		})
		close(release)
		if _, err := p.Wait(t.Context(), "slow.1"); err != nil {
			t.Fatal(err)
		}
		p.Engine.Close()
		if left := scrape(t, registry); len(left) > 0 {
			t.Errorf("metrics are left behind: %v", left)
		}
	})
}

// What goes wrong is counted, too: a lease that is lost, an outcome that nobody
// wants any more, a write that came second.
func TestMetricsOfTrouble(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, registry := watched(t, srv, "a")
		owner, _ := watched(t, srv, "o")
		owner.run(engine.WorkerOptions{}, engine.NewJob("other", func(context.Context, any) (any, error) { return nil, nil }))
		stuck := engine.NewJob("job", func(context.Context, any) (any, error) {
			time.Sleep(time.Minute) // whatever its context says
			return nil, nil
		})
		p.run(engine.WorkerOptions{NoOwner: true}, stuck)
		submit(t, owner.Engine, "job", 1)
		time.Sleep(time.Second)
		p.link.Down()
		time.Sleep(3 * p.Lease())
		q := start(t, srv, "b", nil)
		q.run(engine.WorkerOptions{NoOwner: true}, engine.NewJob("job", func(context.Context, any) (any, error) { return "mine", nil }))
		ended(t, owner.Engine, "job.1", "succeeded", 2, 1)
		p.link.Up()
		time.Sleep(2 * time.Minute)
		counted(t, registry, map[string]float64{"lease_losses_total ": 1, "stale_outcomes_total job": 1, "conflicts_total ": 1, "attempts_in_flight job": 0, "owner ": 0})
	})
}

// Two engines of a namespace cannot show their metrics in one place, unless the
// place tells them apart.
func TestMetricsTwice(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	registry := prometheus.NewRegistry()
	connect(t, srv, engine.Options{Registerer: registry})
	_, err := engine.Connect(t.Context(), natstest.Connect(t, srv), engine.Options{Registerer: registry, Logger: voice(t)})
	refused(t, err, "prometheus.WrapRegistererWith")
	connect(t, srv, engine.Options{Namespace: "other", Registerer: registry})
	both := prometheus.NewRegistry()
	for _, name := range []string{"1", "2"} {
		connect(t, srv, engine.Options{Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"engine": name}, both)})
	}
	counted(t, both, map[string]float64{"ready 1": 1, "ready 2": 1})
}

// The span of whoever submits is the parent of what the handler does, and of the
// jobs that it submits.
func TestTrace(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng := connect(t, srv)
	seen := make(chan trace.SpanContext, 3)
	leaf := engine.NewJob("leaf", func(ctx context.Context, _ any) (any, error) {
		seen <- trace.SpanContextFromContext(ctx)
		return nil, nil
	})
	root := engine.NewJob("root", func(ctx context.Context, _ any) (any, error) {
		seen <- trace.SpanContextFromContext(ctx)
		_, err := leaf.Submit(ctx, eng, nil)
		return nil, err
	})
	work(t, eng, engine.WorkerOptions{}, leaf, root)
	state, err := trace.ParseTraceState("vendor=1")
	if err != nil {
		t.Fatal(err)
	}
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state})
	if _, err := root.Submit(trace.ContextWithSpanContext(t.Context(), parent), eng, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := <-seen; got.TraceID() != parent.TraceID() || got.SpanID() != parent.SpanID() || got.TraceState().String() != "vendor=1" || !got.IsSampled() {
			t.Errorf("the handler has %+v, want %+v", got, parent)
		}
	}
	given := fmt.Sprintf("00-%032d-%016d-01", 7, 8)
	opts := engine.SubmitOptions{Trace: map[string]string{"Traceparent": given}}
	if _, err := leaf.Submit(trace.ContextWithSpanContext(t.Context(), parent), eng, nil, opts); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.TraceID().String() != fmt.Sprintf("%032d", 7) {
		t.Errorf("the handler has %v, want the trace that was given", got.TraceID())
	}
	if _, err := leaf.Submit(t.Context(), eng, nil); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.IsValid() {
		t.Errorf("the handler has trace %v out of nothing", got.TraceID())
	}
}
