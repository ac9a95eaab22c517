package publish

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// api is where JetStream of the server's own domain is asked. What it has to do
// with buckets goes to subjects with the prefix buckets.
const (
	api     = "$JS.API."
	buckets = "$KV."
)

// API returns the subject of a request to JetStream, such as STREAM.INFO.orders.
//
// A leaf node lets through neither $JS.API nor $KV: behind it may be another
// JetStream, with streams of the same names. It does let through what names its
// domain, $JS.<domain>.API, and the server that has the domain takes that for
// the plain subject. Everything else, such as subjects of streams, deliveries
// and their acknowledgements, goes by its own name through any number of servers.
func (p *Publisher) API(tail string) string { return p.prefix() + tail }

// AcksOf returns the subjects, with wildcards, on which the deliveries of a consumer
// are answered: in every domain, and in the form of earlier servers.
func AcksOf(stream, consumer string) []string {
	tail := stream + "." + consumer + ".>"
	return []string{"$JS.ACK." + tail, "$JS.ACK.*.*." + tail}
}

// Domain returns the JetStream domain that p uses, or nothing for that of the
// server.
func (p *Publisher) Domain() string { return p.opts.Domain }

// CheckDomain refuses what is no name of a JetStream domain. No domain is that of
// the server.
func CheckDomain(domain string) error {
	if strings.ContainsAny(domain, ".*> \t\r\n") {
		return fmt.Errorf("JetStream domain %q is not one word: write it as the server's configuration has it", domain)
	}
	return nil
}

// JetStream returns a client of the JetStream that p publishes to, on the same
// connection. Nobody else makes one, so that all ask the same domain.
func (p *Publisher) JetStream(opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	js, err := jetstream.NewWithAPIPrefix(p.nc, p.prefix(), opts...)
	if err != nil {
		return nil, fmt.Errorf("publish: open JetStream: %w", err)
	}
	return js, nil
}

func (p *Publisher) prefix() string {
	if p.opts.Domain == "" {
		return api
	}
	return "$JS." + p.opts.Domain + ".API."
}

// route returns where a message for a subject is sent: what is for a bucket of
// another domain has the domain before it, and is stored without it.
func (p *Publisher) route(subject string) string {
	if p.opts.Domain == "" || !strings.HasPrefix(subject, buckets) {
		return subject
	}
	return p.prefix() + subject
}
