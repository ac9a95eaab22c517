package direct

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What has no sequence and no time is an error.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "7", "-1", "2026-11-21T12:00:00Z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		header := nats.Header{jetstream.SequenceHeader: {text}, jetstream.TimeStampHeaer: {text}}
		if m, err := parse(&nats.Msg{Header: header}); err == nil {
			t.Errorf("%q is a sequence and a time: %v", text, m)
		}
	})
}

// The end of the answers says how it went on, or what went wrong.
func FuzzEnd(f *testing.F) {
	f.Add("204", "EOB", "3", uint64(7), true)
	f.Add("404", "Message Not Found", "", uint64(0), true)
	f.Add("500", "", "", uint64(1), false)
	f.Fuzz(func(t *testing.T, status, description, pending string, last uint64, multi bool) {
		var g Get
		if multi {
			g.MultiLast = []string{"a"}
		}
		msg := &nats.Msg{Header: nats.Header{"Description": {description}, "Nats-Num-Pending": {pending}}}
		got, more, err := g.end(status, msg, last)
		if more && (err != nil || got != last || last == 0) {
			t.Errorf("goes on behind %d of %d, %v", got, last, err)
		}
	})
}
