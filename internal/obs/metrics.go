package obs

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configures [Metrics].
type Options struct {
	// Namespace is the installation that the metrics are about.
	Namespace string
	// Probe is asked at each scrape. It is required, and bounds its time
	// itself.
	Probe func() Sample
	// Lacks are what a job can lack, see [Metrics.Healed]. They are counted from 0:
	// whoever scrapes sees no growth in a series that begins with 1.
	Lacks []string
}

// Metrics counts what happens in a process. It is safe for concurrent use, and
// so is nil, which counts nothing. A transition that was stored and whose answer
// was lost may not be counted: the records are the truth, not these numbers.
type Metrics struct {
	kinds kinds
	probe func() Sample

	submitted *prometheus.CounterVec // by kind
	ended     *prometheus.CounterVec // by kind, state
	attempts  *prometheus.CounterVec // by kind, outcome
	stale     *prometheus.CounterVec // by kind
	healed    *prometheus.CounterVec // by lack
	conflicts prometheus.Counter
	losses    prometheus.Counter
	ticks     *prometheus.CounterVec   // by kind, result
	lateness  *prometheus.HistogramVec // by kind
	waited    *prometheus.HistogramVec // by kind
	ran       *prometheus.HistogramVec // by kind
	inFlight  *prometheus.GaugeVec     // by queue

	counted []prometheus.Collector
	sampled gauges
}

// buckets are the upper bounds of durations, in seconds: from what a queue that
// keeps up takes to what somebody should look at.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}

// New returns metrics that count from 0.
func New(o Options) *Metrics {
	m := &Metrics{probe: o.Probe, kinds: kinds{known: map[string]struct{}{}}}
	labels := prometheus.Labels{"namespace": o.Namespace}
	counter := func(name, help string, by ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_" + name, Help: help, ConstLabels: labels}, by)
		m.counted = append(m.counted, c)
		return c
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "millrace_" + name, Help: help, ConstLabels: labels, Buckets: buckets}, []string{"kind"})
		m.counted = append(m.counted, h)
		return h
	}
	m.submitted = counter("jobs_submitted_total", "Jobs that this process created.", "kind")
	m.ended = counter("jobs_ended_total", "Jobs that this process saw to their end, by the state they ended in.", "kind", "state")
	m.attempts = counter("attempts_total", "Attempts that ended in a write of this process: succeeded, failed, returned, cancelled or lost.", "kind", "outcome")
	m.stale = counter("stale_outcomes_total", "Outcomes of attempts that were dropped: somebody else had the job by then, or it had ended.", "kind")
	m.healed = counter("reconciled_total", "Jobs that had lost what drives them and that this process healed as the owner, by what they lacked.", "lack")
	for _, lack := range o.Lacks {
		m.healed.WithLabelValues(lack)
	}
	m.conflicts = counter("conflicts_total", "Writes of jobs that were refused because another one came first.").WithLabelValues()
	m.losses = counter("lease_losses_total", "How often this process lost its lease as a node.").WithLabelValues()
	m.ticks = counter("ticks_total", "Ticks of schedules of which this process made a job (made), or skipped one, before or after it was made, by the reason.", "kind", "result")
	m.lateness = histogram("tick_lateness_seconds", "From a tick of a schedule to when this process made its job.")
	m.waited = histogram("job_start_delay_seconds", "From when a job could start, submitted or due, to the start of its first attempt.")
	m.ran = histogram("attempt_duration_seconds", "From the start of a handler to its return.")
	m.inFlight = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_attempts_in_flight", Help: "Handlers that run in this process.", ConstLabels: labels}, []string{"queue"})
	m.counted = append(m.counted, m.inFlight)
	m.sampled = newGauges(labels)
	return m
}

// Submitted counts a job that was created.
func (m *Metrics) Submitted(kind string) {
	if m != nil {
		m.submitted.WithLabelValues(m.kinds.label(kind)).Inc()
	}
}

// Ticked counts a tick that became a job, so long after its time.
func (m *Metrics) Ticked(kind string, after time.Duration) {
	if m != nil {
		m.ticks.WithLabelValues(m.kinds.label(kind), "made").Inc()
		m.lateness.WithLabelValues(m.kinds.label(kind)).Observe(max(after, 0).Seconds())
	}
}

// Skipped counts ticks that were skipped together, for a reason.
func (m *Metrics) Skipped(kind, reason string, ticks int64) {
	if m != nil {
		m.ticks.WithLabelValues(m.kinds.label(kind), reason).Add(float64(max(ticks, 0)))
	}
}

// Started counts the first start of a job, after it could have started.
func (m *Metrics) Started(kind string, after time.Duration) {
	if m != nil {
		m.waited.WithLabelValues(m.kinds.label(kind)).Observe(max(after, 0).Seconds())
	}
}

// Ended counts a job that has ended in a state.
func (m *Metrics) Ended(kind, state string) {
	if m != nil {
		m.ended.WithLabelValues(m.kinds.label(kind), state).Inc()
	}
}

// Attempted counts an attempt that has ended in an outcome.
func (m *Metrics) Attempted(kind, outcome string) {
	if m != nil {
		m.attempts.WithLabelValues(m.kinds.label(kind), outcome).Inc()
	}
}

// Stale counts an outcome that was dropped.
func (m *Metrics) Stale(kind string) {
	if m != nil {
		m.stale.WithLabelValues(m.kinds.label(kind)).Inc()
	}
}

// Healed counts a job that lacked something.
func (m *Metrics) Healed(lack string) {
	if m != nil {
		m.healed.WithLabelValues(lack).Inc()
	}
}

// Conflict counts a write that was refused because another one came first.
func (m *Metrics) Conflict() {
	if m != nil {
		m.conflicts.Inc()
	}
}

// LeaseLost counts a lease of the node that was lost.
func (m *Metrics) LeaseLost() {
	if m != nil {
		m.losses.Inc()
	}
}

// Run counts a handler that begins, and returns what is to be called when it has
// returned.
func (m *Metrics) Run(queue, kind string) (ended func()) {
	if m == nil {
		return func() {}
	}
	flying, ran := m.inFlight.WithLabelValues(queue), m.ran.WithLabelValues(m.kinds.label(kind))
	flying.Inc()
	began := time.Now()
	return func() {
		flying.Dec()
		ran.Observe(time.Since(began).Seconds())
	}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.counted {
		c.Describe(ch)
	}
	m.sampled.describe(ch)
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.counted {
		c.Collect(ch)
	}
	m.sampled.collect(ch, m.probe())
}

// maxKinds bounds how many kinds have numbers of their own. Who submits can make
// up as many as he likes.
const maxKinds = 500

// other is the label of all that have no numbers of their own.
const other = "other"

// kinds are those that have been seen.
type kinds struct {
	mu    sync.RWMutex
	known map[string]struct{}
}

// label returns the kind, or [other] if there are too many.
func (k *kinds) label(kind string) string {
	k.mu.RLock()
	_, known := k.known[kind]
	full := len(k.known) >= maxKinds
	k.mu.RUnlock()
	switch {
	case known:
		return kind
	case full:
		return other
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) < maxKinds {
		k.known[kind] = struct{}{}
		return kind
	}
	return other
}
