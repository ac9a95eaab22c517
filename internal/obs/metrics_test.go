package obs_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/internal/obs"
)

// scrape returns the lines that a scraper gets.
func scrape(t *testing.T, m *obs.Metrics) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(m); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatalf("the scrape fails: %s", answer.Body)
	}
	return strings.Split(answer.Body.String(), "\n")
}

func TestScrape(t *testing.T) {
	t.Parallel()
	m := obs.New(obs.Options{Namespace: "ns", Lacks: []string{"timer"}, Probe: func() obs.Sample {
		return obs.Sample{
			Ready: true, Owner: true, Slots: 10, Used: 3,
			Jobs:   map[string]obs.Jobs{"q": {Pending: 1, Delayed: 2, Running: 3, Waiting: 4}},
			Queues: map[string]obs.Items{"q": {Waiting: 4, Taken: 5}},
		}
	}})
	m.Submitted("q.k")
	m.Started("q.k", 20*time.Millisecond)
	m.Started("q.k", -time.Second) // clocks differ
	done := m.Run("q", "q.k")
	m.Run("q", "q.k")
	done()
	m.Attempted("q.k", "failed")
	m.Ended("q.k", "succeeded")
	m.Stale("q.k")
	m.Healed("item")
	m.Conflict()
	m.LeaseLost()
	m.Ticked("q.k", 3*time.Millisecond)
	m.Skipped("q.k", "misfire", 42)
	lines := scrape(t, m)
	for _, want := range []string{
		`millrace_jobs_submitted_total{kind="q.k",namespace="ns"} 1`,
		`millrace_job_start_delay_seconds_bucket{kind="q.k",namespace="ns",le="0.001"} 1`,
		`millrace_job_start_delay_seconds_bucket{kind="q.k",namespace="ns",le="0.025"} 2`,
		`millrace_attempt_duration_seconds_count{kind="q.k",namespace="ns"} 1`,
		`millrace_attempts_in_flight{namespace="ns",queue="q"} 1`,
		`millrace_attempts_total{kind="q.k",namespace="ns",outcome="failed"} 1`,
		`millrace_jobs_ended_total{kind="q.k",namespace="ns",state="succeeded"} 1`,
		`millrace_stale_outcomes_total{kind="q.k",namespace="ns"} 1`,
		`millrace_reconciled_total{lack="item",namespace="ns"} 1`,
		`millrace_reconciled_total{lack="timer",namespace="ns"} 0`,
		`millrace_conflicts_total{namespace="ns"} 1`,
		`millrace_lease_losses_total{namespace="ns"} 1`,
		`millrace_ticks_total{kind="q.k",namespace="ns",result="made"} 1`,
		`millrace_ticks_total{kind="q.k",namespace="ns",result="misfire"} 42`,
		`millrace_tick_lateness_seconds_bucket{kind="q.k",namespace="ns",le="0.0025"} 0`,
		`millrace_tick_lateness_seconds_bucket{kind="q.k",namespace="ns",le="0.005"} 1`,
		`millrace_ready{namespace="ns"} 1`,
		`millrace_owner{namespace="ns"} 1`,
		`millrace_slots{namespace="ns"} 10`,
		`millrace_slots_used{namespace="ns"} 3`,
		`millrace_jobs{namespace="ns",queue="q",state="pending"} 1`,
		`millrace_jobs{namespace="ns",queue="q",state="delayed"} 2`,
		`millrace_jobs{namespace="ns",queue="q",state="running"} 3`,
		`millrace_jobs{namespace="ns",queue="q",state="waiting"} 4`,
		`millrace_queue_items_waiting{namespace="ns",queue="q"} 4`,
		`millrace_queue_items_taken{namespace="ns",queue="q"} 5`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
}

// Whoever makes up kinds does not fill the memory of those who scrape.
func TestKindsAreBounded(t *testing.T) {
	t.Parallel()
	m := obs.New(obs.Options{Probe: func() obs.Sample { return obs.Sample{} }})
	for i := range 10_000 {
		m.Submitted(fmt.Sprint("kind", i))
	}
	m.Submitted("kind0")
	n := 0
	for _, line := range scrape(t, m) {
		if strings.HasPrefix(line, "millrace_jobs_submitted_total") {
			n++
		}
	}
	if n != 501 {
		t.Errorf("%d kinds have a number, want 500 and the others", n)
	}
	if lines := scrape(t, m); !slices.Contains(lines, `millrace_jobs_submitted_total{kind="other",namespace=""} 9500`) ||
		!slices.Contains(lines, `millrace_jobs_submitted_total{kind="kind0",namespace=""} 2`) {
		t.Error("kinds beyond the bound are not counted together, or those within not apart")
	}
}

// Neither does whoever makes up queues: those with the most jobs have numbers of their
// own.
func TestQueuesAreBounded(t *testing.T) {
	t.Parallel()
	s := obs.Sample{Jobs: map[string]obs.Jobs{"large": {Pending: 7, Delayed: 2}}, Queues: map[string]obs.Items{"large": {Waiting: 7}}}
	for i := range 2000 {
		queue := fmt.Sprint("queue", i)
		s.Jobs[queue], s.Queues[queue] = obs.Jobs{Pending: 1, Running: 1}, obs.Items{Waiting: 1, Taken: 1}
	}
	delete(s.Queues, "queue999") // nobody knows
	lines := scrape(t, obs.New(obs.Options{Probe: func() obs.Sample { return s }}))
	n := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "millrace_jobs{") {
			n++
		}
	}
	if n != 4*501 {
		t.Errorf("there are %d numbers of jobs, want four for each of 500 queues and for the others", n)
	}
	for _, want := range []string{
		`millrace_jobs{namespace="",queue="large",state="pending"} 7`,
		`millrace_jobs{namespace="",queue="large",state="delayed"} 2`,
		`millrace_queue_items_waiting{namespace="",queue="large"} 7`,
		`millrace_jobs{namespace="",queue="other",state="running"} 1501`,
		`millrace_queue_items_taken{namespace="",queue="other"} 1500`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
}

// Metrics that nobody wants count nothing.
func TestNil(t *testing.T) {
	t.Parallel()
	var m *obs.Metrics
	m.Submitted("k")
	m.Started("k", time.Second)
	m.Run("q", "k")()
	m.Attempted("k", "failed")
	m.Ended("k", "failed")
	m.Stale("k")
	m.Healed("item")
	m.Conflict()
	m.LeaseLost()
	m.Ticked("k", time.Second)
	m.Skipped("k", "misfire", 1)
}

// All that one job that succeeds costs.
func BenchmarkJob(b *testing.B) {
	m := obs.New(obs.Options{Probe: func() obs.Sample { return obs.Sample{} }})
	for name, m := range map[string]*obs.Metrics{"counted": m, "nobody": nil} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Submitted("email.send")
				m.Started("email.send", time.Millisecond)
				done := m.Run("email", "email.send")
				done()
				m.Attempted("email.send", "succeeded")
				m.Ended("email.send", "succeeded")
			}
		})
	}
}
