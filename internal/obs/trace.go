package obs

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope names this module among those that make spans.
const scope = "github.com/millrace/millrace/engine"

var w3c propagation.TraceContext

// Inject returns the trace context of ctx by header name, or nil if it has none.
func Inject(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	headers := propagation.MapCarrier{}
	w3c.Inject(ctx, headers)
	return headers
}

// Extract returns ctx with the trace context that headers have, if they have a
// valid one. The case of their names does not matter.
func Extract(ctx context.Context, headers map[string]string) context.Context {
	if len(headers) == 0 {
		return ctx
	}
	carrier := make(propagation.MapCarrier, len(headers))
	for key, value := range headers {
		carrier[strings.ToLower(key)] = value
	}
	return w3c.Extract(ctx, carrier)
}

// Attempt is what a span says of an attempt.
type Attempt struct {
	Namespace, Node, Queue string
	Job, Kind              string
	Number                 int
}

// Tracer begins spans, with the provider of tracers that the program has set, or
// sets later.
type Tracer struct{ tracer trace.Tracer }

// NewTracer returns a tracer of the program's provider.
func NewTracer() Tracer { return Tracer{otel.Tracer(scope)} }

// consumer says what kind of span an attempt is.
var consumer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer)}

// Start begins the span of an attempt. It ends by the function that is returned,
// which is told the handler's error.
func (t Tracer) Start(ctx context.Context, a Attempt) (context.Context, func(error)) {
	ctx, span := t.tracer.Start(ctx, a.Kind, consumer...)
	if !span.IsRecording() {
		return ctx, func(error) { span.End() }
	}
	span.SetAttributes(
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.name", "process"),
		attribute.String("messaging.destination.name", a.Queue),
		attribute.String("millrace.namespace", a.Namespace),
		attribute.String("millrace.node", a.Node),
		attribute.String("millrace.job", a.Job),
		attribute.String("millrace.kind", a.Kind),
		attribute.Int("millrace.attempt", a.Number),
	)
	return ctx, func(err error) {
		defer span.End()
		if err != nil {
			fail(span, err)
		}
	}
}

// fail notes that an attempt failed. The methods of its error are code of users,
// and may panic.
func fail(span trace.Span, err error) {
	defer func() { _ = recover() }()
	span.SetStatus(codes.Error, "")
	span.SetStatus(codes.Error, err.Error())
	span.RecordError(err)
}
