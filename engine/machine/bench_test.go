package machine

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// benchInput is a small input, such as an event's.
var benchInput = json.RawMessage(`{"order":"o-4711","customer":"ada","total":12.5}`)

// BenchmarkLife measures the two moves of a job that succeeds at once, after so
// many attempts that were handed back.
func BenchmarkLife(b *testing.B) {
	for _, attempts := range []int{0, 10} {
		b.Run("attempts="+strconv.Itoa(attempts), func(b *testing.B) {
			j := handBack(b, newJob(), attempts)
			c := claimant(100, "a", 1)
			b.ReportAllocs()
			for b.Loop() {
				running := must(b, j, Claimed{c})
				must(b, running, Done{Hold: Hold{Token: c.Lease.Token, At: c.At}, Result: benchInput})
			}
		})
	}
}

// BenchmarkRecord measures the record of a running job as JSON, with what
// encoding/json takes for it beside our own encoder.
func BenchmarkRecord(b *testing.B) {
	for _, size := range []int{0, 1 << 10, 32 << 10} {
		j := must(b, newJob(), Claimed{claimant(1, "a", 1)})
		j.Input = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
		data := []byte(text(b, j))
		b.Run("op=encode/input="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				j.AppendJSON(make([]byte, 0, len(data)))
			}
		})
		b.Run("op=marshal/input="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := json.Marshal(j); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("op=decode/input="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				var got Job
				if err := json.Unmarshal(data, &got); err != nil {
					b.Fatal(err)
				}
				if err := got.Validate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func newJob() Job {
	return Job{ID: "orders.o-4711", Kind: "orders.fulfil", State: Pending, Input: benchInput, Created: storyStart}
}
