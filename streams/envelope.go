package streams

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Envelope is what every message of Millrace carries, whatever its type: one
// header names type and version, two more the trace that it belongs to.
//
//	Mr-Type: item/1
//	traceparent: 00-…
//	tracestate: …
//
// Headers and fields of the body that a reader does not know are passed over,
// so the version grows only when an old reader would get it wrong.
type Envelope struct {
	// Type says what the body is, such as "job" or "item".
	Type string
	// Version is the version of the type, from 1.
	Version int
	// Trace is the W3C trace context, by header name; it may be nil.
	Trace map[string]string
	// Body is the message.
	Body []byte
}

// typeHeader names the type and version of a message.
const typeHeader = "Mr-Type"

// traceHeaders carry the W3C trace context.
var traceHeaders = []string{"traceparent", "tracestate"}

// Header returns the headers of e. The caller may add to them.
func (e Envelope) Header() nats.Header {
	h := make(nats.Header, 4+len(e.Trace))
	h[typeHeader] = []string{e.Type + "/" + strconv.Itoa(e.Version)}
	for _, key := range traceHeaders {
		if value := e.Trace[key]; value != "" {
			h[key] = []string{value}
		}
	}
	return h
}

// Decode reads a message that should have a type, in a version up to newest.
func Decode(h nats.Header, body []byte, typ string, newest int) (Envelope, error) {
	name, number, ok := strings.Cut(h.Get(typeHeader), "/")
	if !ok || name != typ {
		return Envelope{}, fmt.Errorf("streams: decode message: it is of type %q, want %q: something else publishes here", h.Get(typeHeader), typ)
	}
	version, err := strconv.Atoi(number)
	if err != nil || version < 1 {
		return Envelope{}, fmt.Errorf("streams: decode %s: %q is no version", typ, number)
	}
	if version > newest {
		return Envelope{}, fmt.Errorf("streams: decode %s: it has version %d, this build reads up to %d: upgrade this process", typ, version, newest)
	}
	e := Envelope{Type: name, Version: version, Body: body}
	for _, key := range traceHeaders {
		if value := h.Get(key); value != "" {
			if e.Trace == nil {
				e.Trace = map[string]string{}
			}
			e.Trace[key] = value
		}
	}
	return e, nil
}
