package spec_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/engine/spec"
	"pgregory.net/rapid"
)

// A queue made in Go is refused in the same words, without a place.
func TestValidateQueue(t *testing.T) {
	t.Parallel()
	if err := (spec.Queue{Name: "a"}).Validate(); err != nil {
		t.Errorf("a queue with only a name is refused: %v", err)
	}
	bad := spec.Queue{Name: "a b", Concurrency: -1, Retention: spec.Retention{
		Succeeded: spec.Duration(time.Minute), Failed: spec.Duration(time.Hour + time.Millisecond),
		Cancelled: spec.Duration(200 * 365 * 24 * time.Hour),
	}}
	want := strings.Join([]string{
		`queue "a b": name "a b" contains ' ': use only A-Z a-z 0-9 _ -`,
		`queue "a b": concurrency is -1: use 1 or more, or 0 for no limit`,
		`queue "a b": retention.succeeded is 1m: no retention is shorter than 10m`,
		`queue "a b": retention.failed is 1h0m0.001s: use whole seconds`,
		`queue "a b": retention.cancelled is 73000d: use 36500d or less`,
	}, "\n")
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestDiffQueue(t *testing.T) {
	t.Parallel()
	before := spec.Queue{Name: "a", Concurrency: 3, Paused: new(true)}
	after := spec.Queue{Name: "a", Paused: new(false), Retention: spec.Retention{Failed: spec.Duration(72 * time.Hour)}}
	want := []spec.Change{
		{Field: "concurrency", Old: "3"},
		{Field: "paused", Old: "true", New: "false"},
		{Field: "retention.failed", New: "3d"},
	}
	if diff := cmp.Diff(want, spec.Diff(before, after)); diff != "" {
		t.Error(diff)
	}
}

// queues draws queues that are valid.
func queues() *rapid.Generator[spec.Queue] {
	retention := rapid.Custom(func(t *rapid.T) spec.Duration {
		if rapid.Bool().Draw(t, "default") {
			return 0
		}
		return spec.Duration(rapid.Int64Range(600, 1e9).Draw(t, "seconds") * int64(time.Second))
	})
	return rapid.Custom(func(t *rapid.T) spec.Queue {
		q := spec.Queue{
			Name:        rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "name"),
			Concurrency: rapid.IntRange(0, 1<<40).Draw(t, "concurrency"),
			Retention: spec.Retention{
				Succeeded: retention.Draw(t, "succeeded"),
				Failed:    retention.Draw(t, "failed"),
				Cancelled: retention.Draw(t, "cancelled"),
			},
		}
		if rapid.Bool().Draw(t, "says") {
			q.Paused = new(rapid.Bool().Draw(t, "paused"))
		}
		return q
	})
}

// A queue comes back as it was from its JSON, through the parser of documents as
// through that of Go, and so does every duration from its text.
func TestQueueJSONLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := queues().Draw(t, "queue")
		if err := want.Validate(); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := spec.Parse("f.json", data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]spec.Document{want}, docs); diff != "" {
			t.Error(diff)
		}
		var got spec.Queue
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// Whatever a duration can be read from, it is written so that it is read again
// as the same.
func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"", "14d", "24h", "1h30m", "90m", "10m0s", "1.5h", "-3d", "1d12h", "d", "9999999999d", "106751d", "-9223372036854775808ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := spec.ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := spec.ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%q is %d, written as %s, read as %d, %v", s, d, d, again, err)
		}
	})
}
