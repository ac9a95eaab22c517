package machine

import (
	"encoding/json"
	"testing"
)

// Whatever is found in the bucket: what decodes and is valid can be moved, and
// stays valid. Nothing panics.
func FuzzRecord(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var j Job
		if json.Unmarshal(data, &j) != nil || j.Validate() != nil {
			return
		}
		// No job counts this far, so no count overflows.
		j.Attempt, j.Failures = min(j.Attempt, 1<<40), min(j.Failures, 1<<40)

		checkEncoder(t, j)
		if again := decode(t, text(t, j)); text(t, again) != text(t, j) {
			t.Errorf("read again as %s\nwas %s", text(t, again), text(t, j))
		}
		for _, ev := range everyEvent(j, 1) {
			before := text(t, j)
			next, err := j.Apply(ev)
			if text(t, j) != before {
				t.Fatalf("%T changed what it was applied to\nwas %s\nis  %s", ev, before, text(t, j))
			}
			if err == nil && next.Validate() != nil {
				t.Fatalf("%T %+v: %v\nof %s\nis %s", ev, ev, next.Validate(), before, text(t, next))
			}
			if next.State != Running && next.State.Known() && len(next.Owes()) == 0 {
				t.Fatalf("%T: owes nothing: %s", ev, text(t, next))
			}
		}
		checkDeliveries(t, j, 1)
	})
}

// seed adds a record of every kind that lives produce, and broken ones.
func seed(f *testing.F) {
	f.Helper()
	var live func(j Job, step int)
	live = func(j Job, step int) {
		f.Add([]byte(text(f, j)))
		if step == 3 {
			return
		}
		for _, ev := range everyEvent(j, step) {
			if next, err := j.Apply(ev); err == nil {
				live(next, step+1)
			}
		}
	}
	for _, j := range append(newJobs(2), newPinned(2)...) {
		j.Input = json.RawMessage(`{"to":"ada"}`)
		live(j, 0)
	}
	for _, j := range append(newFans(), newTicks()...) {
		live(j, 0)
	}
	for _, broken := range []string{
		``, `null`, `{}`, `[]`, `{"state":1}`,
		`{"state":"running"}`,
		`{"state":"running","lease":{"token":"t"}}`,
		`{"state":"running","lease":{"token":"t"},"attempts":[{}]}`,
		`{"state":"running","lease":{"token":"t"},"attempts":[{},{},{},{},{},{},{},{},{},{},{},{},{}]}`,
		`{"state":"running","lease":{"token":"t"},"cancel":{},"attempts":[{}],"failures":9}`,
		`{"state":"pending","lease":{}}`, `{"state":"pending","cancel":{}}`, `{"state":"failed","attempts":[{}]}`,
		`{"state":"pending","max_attempts":-1}`, `{"state":"pending","attempt":9223372036854775807}`,
		`{"state":"paused","lease":{}}`,
		`{"state":"scheduled"}`, `{"state":"retrying","due":"0001-01-01T00:00:00Z"}`, `{"state":"scheduled","due":"9999-12-31T23:59:59.9999Z"}`,
		`{"state":"running","lease":{"token":"t"},"attempts":[{}],"retry":{"delay_ns":-1,"factor":-1e300,"max_delay_ns":-1,"jitter":1e300,"max_age_ns":-1}}`,
		`{"state":"running","lease":{"token":"t"},"attempts":[{}],"retry":{"delays_ns":[9223372036854775807]}}`,
		`{"state":"running","lease":{"token":"t"},"attempts":[{}],"start_by":"2000-01-01T00:00:00Z","deadline":"2000-01-01T00:00:00Z"}`,
		`{"state":"removing","due":"2026-01-01T00:00:00Z"}`,
		`{"state":"waiting"}`, `{"state":"waiting","fan":{}}`, `{"state":"waiting","fan":{"total":-1,"need":-1,"max_parallel":-1}}`,
		`{"state":"waiting","fan":{"shares":[{}],"total":9}}`, `{"state":"pending","fan":{}}`, `{"state":"failed","fan":{}}`, `{"state":"lost","fan":{}}`,
		`{"state":"pending","pin":{}}`, `{"state":"pending","pin":{"else":"fail"}}`, `{"state":"pending","pin":{"node":"a","rule":{}},"parent":{}}`,
		`{"state":"running","lease":{"node":"a","token":"t"},"attempts":[{}],"pin":{"node":"b","else":"fail"}}`,
		`{"state":"running","lease":{"node":"a","token":"t"},"attempts":[{}],"fan":{}}`,
		`{"state":"scheduled","due":"2026-01-01T00:00:00Z","wait":"turn"}`, `{"state":"skipped"}`, `{"state":"skipped","tick":{"more":{}}}`,
		`{"state":"scheduled","due":"2026-01-01T00:00:00Z","wait":"turn","tick":{"turn":true}}`, `{"state":"pending","wait":"turn","tick":{"turn":true}}`,
		`{"state":"scheduled","due":"2026-01-01T00:00:00Z","wait":"turn","tick":{"turn":true},"fan":{"total":2},"attempt":3}`,
	} {
		f.Add([]byte(broken))
	}
}

func decode(t *testing.T, data string) Job {
	t.Helper()
	var j Job
	if err := json.Unmarshal([]byte(data), &j); err != nil {
		t.Fatal(err)
	}
	return j
}
