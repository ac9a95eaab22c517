// Package obs is what a process shows of itself: metrics for Prometheus, and the
// trace context and spans of OpenTelemetry.
//
// [Metrics] is one collector that counts what happens here and asks for the rest
// when it is scraped. A nil *Metrics is one that nobody wants, and costs
// nothing. [Inject] and [Extract] carry a trace from the submitter of a job to
// its handler; [Tracer.Start] begins the span of an attempt, which is recorded if
// the program has set a provider of tracers.
//
// Nothing here is registered, exported or sent: the program decides about that.
package obs
