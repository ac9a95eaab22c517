package obs_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/internal/obs"
)

// What is injected arrives, whatever became of the case of the names.
func TestInjectExtract(t *testing.T) {
	t.Parallel()
	if got := obs.Inject(t.Context()); got != nil {
		t.Errorf("injected %v out of nothing", got)
	}
	sent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	headers := obs.Inject(trace.ContextWithSpanContext(t.Context(), sent))
	want := map[string]string{"traceparent": "00-01000000000000000000000000000000-0200000000000000-01"}
	if diff := cmp.Diff(want, headers); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{"traceparent", "Traceparent", "TRACEPARENT"} {
		got := trace.SpanContextFromContext(obs.Extract(t.Context(), map[string]string{key: want["traceparent"]}))
		if got.TraceID() != sent.TraceID() || got.SpanID() != sent.SpanID() || !got.IsRemote() {
			t.Errorf("%s: extracted %+v, want %+v from afar", key, got, sent)
		}
	}
	for _, bad := range []string{"", "00-0-0-0", strings.Repeat("x", 10_000)} {
		if got := trace.SpanContextFromContext(obs.Extract(t.Context(), map[string]string{"traceparent": bad})); got.IsValid() {
			t.Errorf("extracted %+v from %.20q", got, bad)
		}
	}
}

// provider is one whose tracers are all the same.
type provider struct {
	embedded.TracerProvider
	tracer *recorder
}

func (p provider) Tracer(string, ...trace.TracerOption) trace.Tracer { return p.tracer }

// recorder is a tracer whose spans stay here.
type recorder struct {
	embedded.Tracer
	mu    sync.Mutex
	spans []*span
}

func (r *recorder) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	config := trace.NewSpanStartConfig(opts...)
	s := &span{name: name, kind: config.SpanKind(), parent: trace.SpanContextFromContext(ctx), attrs: map[string]string{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

// span is one that remembers.
type span struct {
	noop.Span
	name   string
	kind   trace.SpanKind
	parent trace.SpanContext
	attrs  map[string]string
	errs   []string
	status codes.Code
	ended  int
}

func (s *span) IsRecording() bool                             { return true }
func (s *span) RecordError(err error, _ ...trace.EventOption) { s.errs = append(s.errs, err.Error()) }
func (s *span) SetStatus(c codes.Code, _ string)              { s.status = c }
func (s *span) End(...trace.SpanEndOption)                    { s.ended++ }
func (s *span) SetAttributes(attrs ...attribute.KeyValue) {
	for _, a := range attrs {
		s.attrs[string(a.Key)] = a.Value.String()
	}
}

type unruly struct{}

func (unruly) Error() string { panic("no words") }

// A program that sets a provider gets a span of each attempt, below that of the
// submitter. Without one nothing is recorded, and the trace goes on.
func TestStart(t *testing.T) { // it sets what the process has one of
	remote := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, Remote: true})
	parent := trace.ContextWithSpanContext(t.Context(), remote)
	tracer := obs.NewTracer()
	ctx, end := tracer.Start(parent, obs.Attempt{Kind: "email.send"})
	end(errors.New("boom"))
	if got := trace.SpanContextFromContext(ctx); got.TraceID() != remote.TraceID() {
		t.Errorf("without a provider the trace is %v", got)
	}

	r := &recorder{}
	otel.SetTracerProvider(provider{tracer: r})
	defer otel.SetTracerProvider(noop.NewTracerProvider())
	a := obs.Attempt{Namespace: "ns", Node: "n", Queue: "email", Job: "email.1", Kind: "email.send", Number: 2}
	for _, err := range []error{nil, errors.New("boom"), unruly{}} {
		_, end := tracer.Start(parent, a)
		end(err)
	}
	if len(r.spans) != 3 {
		t.Fatalf("there are %d spans, want 3", len(r.spans))
	}
	want := map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "process", "messaging.destination.name": "email",
		"millrace.namespace": "ns", "millrace.node": "n", "millrace.job": "email.1", "millrace.kind": "email.send", "millrace.attempt": "2",
	}
	for i, status := range []codes.Code{codes.Unset, codes.Error, codes.Error} {
		s := r.spans[i]
		if s.ended != 1 || s.status != status || s.name != "email.send" || s.kind != trace.SpanKindConsumer || !s.parent.Equal(remote) {
			t.Errorf("span %d is %+v", i, s)
		}
		if diff := cmp.Diff(want, s.attrs); diff != "" {
			t.Error(diff)
		}
	}
	if !cmp.Equal(r.spans[1].errs, []string{"boom"}) || len(r.spans[2].errs) != 0 {
		t.Errorf("the errors are %v and %v", r.spans[1].errs, r.spans[2].errs)
	}
}

// What a trace costs an attempt while nobody records it.
func BenchmarkStart(b *testing.B) {
	headers := map[string]string{"traceparent": "00-01000000000000000000000000000000-0200000000000000-01"}
	for name, headers := range map[string]map[string]string{"traced": headers, "without": nil} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			tracer := obs.NewTracer()
			for b.Loop() {
				_, end := tracer.Start(obs.Extract(b.Context(), headers), obs.Attempt{Kind: "email.send"})
				end(nil)
			}
		})
	}
}
