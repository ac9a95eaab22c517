package triggers

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"
)

// Whatever the config bucket holds is either a trigger that can be used and
// stored again as it is, or has a problem and is kept as it was.
func FuzzReadStored(f *testing.F) {
	f.Add("trigger/1", []byte(`{"kind":"Trigger","name":"a","subject":"b","job":"c","when":"true"}`))
	f.Add("", []byte(`{"name":"a","stream":"b","filter":"x.>","job":"c","later":1}`))
	f.Add("trigger/2", []byte(`{}`))
	f.Add("x", []byte(`[]`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		h := nats.Header{}
		if kind != "" {
			h["Mr-Type"] = []string{kind}
		}
		s := readStored(h, data)
		codec := storedCodec()
		header, again, err := codec.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if s.problem != nil {
			if string(again) != string(data) || header.Get("Mr-Type") != kind {
				t.Errorf("kept %q %q, want %q %q", header.Get("Mr-Type"), again, kind, data)
			}
			return
		}
		if back := readStored(header, again); back.problem != nil || back.Trigger != s.Trigger {
			t.Errorf("%+v came back as %+v, %v", s.Trigger, back.Trigger, back.problem)
		}
		if _, err := storedRule(s.Trigger, 1); err != nil {
			t.Errorf("a trigger without a problem: %v", err)
		}
	})
}

// A dead event comes back as it was, however its headers look, unless it had to
// be cut.
func FuzzDeadEvent(f *testing.F) {
	f.Add("subject", "reason", "Header", "value", []byte("data"))
	f.Add("", "a\nb\x00\xff", "Nats-Msg-Id", "\r\n", []byte{})
	f.Fuzz(func(t *testing.T, subject, reason, key, value string, data []byte) {
		in := DeadEvent{Trigger: "t", Reason: reason, Subject: subject, Data: data, Size: len(data), Header: nats.Header{key: {value}}}
		const limit = 1 << 12
		msg, err := in.message("mr.default.dead.t.1-1", limit)
		if err != nil {
			t.Fatal(err)
		}
		if size := msg.Size(); size > limit+len(msg.Subject) && len(msg.Data) > 0 {
			t.Errorf("message has %d bytes", size)
		}
		about, err := json.Marshal(in.about())
		if err != nil {
			t.Fatal(err)
		}
		if msg.Header.Get(headerEvent) != string(about) && len(about) <= limit/2 {
			t.Errorf("stored %s, want %s", msg.Header.Get(headerEvent), about)
		}
		for _, c := range msg.Header.Get(headerEvent) {
			if c < ' ' {
				t.Fatalf("header has a control character: %q", msg.Header.Get(headerEvent))
			}
		}
	})
}
