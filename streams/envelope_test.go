package streams_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/streams"
)

func TestEnvelopeHeader(t *testing.T) {
	t.Parallel()
	e := streams.Envelope{Type: "job", Version: 3, Trace: map[string]string{
		"traceparent": "00-0af7-b7ad-01", "tracestate": "", "baggage": "not ours",
	}}
	want := nats.Header{"Mr-Type": {"job/3"}, "traceparent": {"00-0af7-b7ad-01"}}
	if d := cmp.Diff(want, e.Header()); d != "" {
		t.Errorf("header (-want +got):\n%s", d)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	body := []byte("{}")
	for _, test := range []struct {
		header nats.Header
		want   streams.Envelope
		err    string
	}{
		{header: nats.Header{"Mr-Type": {"job/1"}}, want: streams.Envelope{Type: "job", Version: 1, Body: body}},
		{
			header: nats.Header{"Mr-Type": {"job/2"}, "X-Unknown": {"1", "2"}, "traceparent": {"p"}, "tracestate": {"s"}},
			want:   streams.Envelope{Type: "job", Version: 2, Body: body, Trace: map[string]string{"traceparent": "p", "tracestate": "s"}},
		},
		{header: nats.Header{"Mr-Type": {"job/3"}}, err: "it has version 3, this build reads up to 2: upgrade this process"},
		{header: nil, err: `it is of type "", want "job"`},
		{header: nats.Header{"Mr-Type": {"job"}}, err: `it is of type "job", want "job"`},
		{header: nats.Header{"Mr-Type": {"item/1"}}, err: `it is of type "item/1", want "job"`},
		{header: nats.Header{"Mr-Type": {"job/"}}, err: `"" is no version`},
		{header: nats.Header{"Mr-Type": {"job/0"}}, err: `"0" is no version`},
		{header: nats.Header{"Mr-Type": {"job/-1"}}, err: `"-1" is no version`},
		{header: nats.Header{"Mr-Type": {"job/1/1"}}, err: `"1/1" is no version`},
		{header: nats.Header{"Mr-Type": {"job/one\ntwo"}}, err: `"one\ntwo" is no version`},
	} {
		got, err := streams.Decode(test.header, body, "job", 2)
		if test.err != "" {
			oneLine(t, err, "streams: decode ", test.err)
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", test.header, err)
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%v (-want +got):\n%s", test.header, d)
		}
	}
}

// What Header writes, Decode reads, also when the message went over the wire
// with headers that this build does not know.
func FuzzEnvelope(f *testing.F) {
	f.Add("job", 1, "00-0af7-b7ad-01", "k=v", "Later", []byte("{}"))
	f.Add("item", 7, "", "\r\nx: y", "", []byte(nil))
	f.Add("a/b", -1, "p", "s", "Mr-Type", []byte{0})
	f.Fuzz(func(t *testing.T, typ string, version int, parent, state, unknown string, body []byte) {
		want := streams.Envelope{Type: typ, Version: version, Body: body, Trace: map[string]string{"traceparent": parent, "tracestate": state}}
		h := want.Header()
		h.Set("X-"+unknown, "tolerated")
		got, err := streams.Decode(h, body, typ, version)
		if version < 1 || strings.Contains(typ, "/") {
			if err == nil {
				t.Errorf("accepted %v", h)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.Header(), got.Header()); d != "" || got.Type != typ || got.Version != version || !bytes.Equal(got.Body, body) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if _, err := streams.Decode(h, body, typ, version-1); err == nil || strings.Contains(err.Error(), "\n") && !strings.Contains(typ, "\n") {
			t.Errorf("version %d is too new: got %v", version, err)
		}
	})
}

// Whatever the headers of a message are, the decoder returns an envelope of the
// type that was asked for, or an error of one line.
func FuzzDecode(f *testing.F) {
	for _, wire := range []string{
		"Mr-Type: item/1\r\ntraceparent: 00-0af7-b7ad-01\r\n", "Mr-Type: item/2\r\n", "mr-type: item/1\r\n",
		"Mr-Type: item/99999999999999999999\r\n", "Mr-Type:\r\n", "Mr-Type: item/+1\r\nMr-Type: job/1\r\n", "",
	} {
		f.Add([]byte(wire), []byte("body"))
	}
	f.Fuzz(func(t *testing.T, wire, body []byte) {
		h, err := nats.DecodeHeadersMsg(fmt.Appendf(nil, "NATS/1.0\r\n%s\r\n", wire))
		if err != nil {
			return
		}
		e, err := streams.Decode(h, body, "item", 1)
		switch {
		case err != nil:
			oneLine(t, err, "streams: decode ")
		case e.Type != "item" || e.Version != 1 || !bytes.Equal(e.Body, body):
			t.Errorf("got %+v", e)
		}
	})
}
