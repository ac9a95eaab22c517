package publish

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		data string
		want Ack
		fast bool
	}{
		{`{"stream":"KV_jobs", "seq":22}`, Ack{Stream: "KV_jobs", Sequence: 22}, true},
		{`{"stream":"S","seq":18000000000000000000}`, Ack{Stream: "S", Sequence: 18000000000000000000}, true},
		{`{"stream":"S","seq":18446744073709551615}`, Ack{Stream: "S", Sequence: 18446744073709551615}, false},
		{`{"stream":"S","seq":7,"duplicate": true}`, Ack{Stream: "S", Sequence: 7, Duplicate: true}, false},
		{`{"stream":"S","domain":"hub","seq":7}`, Ack{Stream: "S", Sequence: 7}, true},
		{`{"stream":"S", "domain":"hub", "seq":7}`, Ack{Stream: "S", Sequence: 7}, true},
		{`{"stream":"S","domain":"a\"b","seq":7}`, Ack{Stream: "S", Sequence: 7}, false},
		{`{"stream":"S","domain":"hub","seq":7,"duplicate": true}`, Ack{Stream: "S", Sequence: 7, Duplicate: true}, false},
	} {
		got, err := parse([]byte(tt.data), names{})
		if err != nil || got != tt.want {
			t.Errorf("parse(%s) = %v, %v, want %v", tt.data, got, err, tt.want)
		}
		if _, fast := parseFast([]byte(tt.data), names{}); fast != tt.fast {
			t.Errorf("parseFast(%s) = %v, want %v", tt.data, fast, tt.fast)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	_, err := parse([]byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"stream":"S","seq":0}`), names{})
	if api := (*jetstream.APIError)(nil); !errors.As(err, &api) || api.ErrorCode != 10071 {
		t.Errorf("refused: got %v, want API error 10071", err)
	}
	for _, data := range []string{``, `{}`, `{"stream":"S","seq":-1}`, `+OK`} {
		if _, err := parse([]byte(data), names{}); !errors.Is(err, ErrUnknown) {
			t.Errorf("parse(%q): got %v, want ErrUnknown", data, err)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	n := names{}
	for i := range 2 * maxNames {
		want := string(rune('a' + i))
		if got := n.get([]byte(want)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if len(n) != maxNames {
		t.Errorf("remembers %d names, want %d", len(n), maxNames)
	}
}

// Whatever the fast reader accepts, the slow one reads the same way.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"stream":"KV_jobs", "seq":22}`, `{"stream":"S","seq":0}`, `{"stream":"S","seq":01}`,
		`{"stream":"a\"b","seq":1}`, `{"stream":"é","seq":1}`, `{"stream":"S","seq":18446744073709551616}`,
		`{"stream":"S","domain":"hub","seq":1}`, `{"stream":"S","seq":1,"duplicate":true}`, `{"stream":"S"  ,"seq":1}`, `{"stream":"S" "seq":1}`, `{"error":{"code":1}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fast, ok := parseFast(data, names{})
		if !ok {
			return
		}
		if slow, err := parseSlow(data); err != nil || slow != fast {
			t.Errorf("%q: fast %v, slow %v, %v", data, fast, slow, err)
		}
	})
}
