package publish

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

// A stored message is read as it was meant, whatever is stored.
func FuzzMessage(f *testing.F) {
	f.Add("a.b", uint64(7), "State", "running", []byte("body"))
	f.Add("", uint64(0), "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, subject string, seq uint64, name, value string, data []byte) {
		at := time.Date(2026, 11, 21, 12, 0, 0, 42, time.UTC)
		message := map[string]any{"subject": subject, "seq": seq, "data": data, "time": at}
		header := headerOf(name, value)
		if header != nil {
			message["hdrs"] = []byte("NATS/1.0\r\n" + name + ": " + value + "\r\n\r\n")
		}
		answer, err := json.Marshal(map[string]any{"message": message})
		if err != nil {
			t.Fatal(err)
		}
		var plain string // JSON replaces what is not UTF-8
		if err := json.Unmarshal(must(json.Marshal(subject)), &plain); err != nil {
			t.Fatal(err)
		}
		var read messageAnswer
		if err := decode(answer, &read); err != nil {
			t.Fatalf("decode %s: %v", answer, err)
		}
		got, err := read.message()
		if err != nil {
			t.Fatalf("read %s: %v", answer, err)
		}
		want := Message{plain, seq, at, header, data}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// headerOf returns a header with one field, or nil if it cannot be one.
func headerOf(name, value string) nats.Header {
	for _, c := range name + value {
		if c <= ' ' || c > '~' || c == ':' {
			return nil
		}
	}
	if name == "" {
		return nil
	}
	return nats.Header{name: {value}}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// Garbage is an error.
func FuzzMessageGarbage(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `{"message":{}}`, `{"message":{"seq":1,"hdrs":"AAAA"}}`, `{"error":{"code":404,"err_code":10037}}`,
		`{"message":{"data":"?"}}`, `[1]`, `7`, `2026-11-21T12:00:00Z`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		var read messageAnswer
		if err := decode([]byte(data), &read); err != nil {
			return
		}
		if m, err := read.message(); err != nil && m.Sequence != 0 {
			t.Errorf("got %v and %v", m, err)
		}
	})
}
