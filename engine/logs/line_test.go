package logs

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

// Whatever is decoded becomes the same line again, and can be shown as JSON.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"fence":7,"number":1,"time":"2026-01-02T03:04:05.6Z","level":"INFO","attempt":1,"node":"n","text":"hello"}`,
		`{"number":2,"level":"WARN+2","text":"x","attrs":{"a":1,"g":{"b":[2]}},"cut":true}`,
		`{"number":3,"level":"WARN","text":"x","dropped":3}`,
		`{"attrs":null}`, `{"attrs":[1]}`, `{"attrs": {} }`, `{"level":"LOUD"}`, `{"number":-1}`, `{`, ``,
	} {
		f.Add("line/1", []byte(seed))
	}
	f.Add("line/2", []byte(`{}`))
	f.Add("job/1", []byte(`{}`))
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		s, err := decode(nats.Header{"Mr-Type": {typ}}, data)
		if err != nil {
			return
		}
		if len(s.Attrs) > 0 && !json.Valid(s.Attrs) {
			t.Errorf("%q: the attributes are no JSON: %s", data, s.Attrs)
		}
		msg, err := s.message("x")
		if err != nil {
			t.Fatalf("%q: cannot be encoded: %v", data, err)
		}
		again, err := decode(msg.Header, msg.Data)
		if err != nil {
			t.Fatalf("%q: cannot be read again: %v", msg.Data, err)
		}
		if msg2, err := again.message("x"); err != nil || string(msg2.Data) != string(msg.Data) {
			t.Errorf("%q: becomes %q and then %q (%v)", data, msg.Data, msg2.Data, err)
		}
	})
}

// A writer sends one window after the other, each in any order and each line of
// it as often as it likes, also later; a reader takes each line once.
func TestNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var n numbers
		taken, next := map[uint64]int{}, rapid.Uint64Range(1, 200).Draw(t, "first")
		first := next
		for range rapid.IntRange(1, 6).Draw(t, "windows") {
			size := rapid.Uint64Range(1, window).Draw(t, "size")
			var stored []uint64
			for number := next; number < next+size; number++ {
				stored = append(stored, number)
			}
			stored = rapid.Permutation(stored).Draw(t, "stored")
			next += size
			for range rapid.IntRange(0, 9).Draw(t, "late") {
				stored = append(stored, rapid.Uint64Range(first, next-1).Draw(t, "again"))
			}
			for _, number := range stored {
				if n.add(number) {
					taken[number]++
				}
			}
		}
		for number := first; number < next; number++ {
			if taken[number] != 1 {
				t.Fatalf("line %d was taken %d times", number, taken[number])
			}
		}
	})
}
