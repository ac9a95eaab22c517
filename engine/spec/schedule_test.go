package spec_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/engine/spec"
)

// A schedule made in Go is refused in the same words, without a place.
func TestValidateSchedule(t *testing.T) {
	t.Parallel()
	if err := (spec.Schedule{Name: "a", Every: spec.Duration(time.Second), Job: "a.x", Input: json.RawMessage("null")}).Validate(); err != nil {
		t.Errorf("a schedule is refused: %v", err)
	}
	bad := spec.Schedule{
		Name: "a b", At: slices.Repeat([]time.Time{time.Unix(1, 0)}, 1001), Start: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC), Every: -1, Job: "a.x", MaxAttempts: -1, MaxRuns: -2, Deadline: spec.Duration(200 * 365 * 24 * time.Hour),
		Misfire: spec.Misfire{Limit: 3}, Overlap: spec.Overlap{Policy: spec.OverlapSkip, Limit: 2}, Note: strings.Repeat("a", 1001),
		Selector: map[string]string{"": strings.Repeat("a", 5000)}, Shards: 2, Input: json.RawMessage(`{"a": `),
	}
	want := []string{
		`schedule "a b": name "a b" contains ' ': use only A-Z a-z 0-9 _ -`,
		`schedule "a b": every is -1ns: use 100ms or more`,
		`schedule "a b": deadline is 73000d: use 36500d or less`,
		`schedule "a b": every and at exclude each other: leave one out`,
		`schedule "a b": start is in the year 1969: use a time from 1970 to 9999`,
		`schedule "a b": at has 1001 entries: use up to 1000, and several schedules for more`,
		`schedule "a b": selector has a label without a name: write it like role: web`,
		`schedule "a b": selector has 5000 bytes: use up to 4096`,
		`schedule "a b": max_attempts is -1: use 1 or more, or 0 for the default`,
		`schedule "a b": max_runs is -2: use 1 or more, or 0 for the default`,
		`schedule "a b": misfire: a limit and a window are for all: use skip, once, all, or {all: {limit: 100, window: 1h}}`,
		`schedule "a b": overlap is skip, which has no limit: use skip, cancel-previous, allow, {allow: 2} or {queue: 3}`,
		`schedule "a b": note has 1001 bytes: use up to 1000`,
		`schedule "a b": input is no JSON: unexpected end of JSON input`,
	}
	err := bad.Validate()
	if diff := cmp.Diff(want, strings.Split(fmt.Sprint(err), "\n")); diff != "" {
		t.Error(diff)
	}
	if _, err := json.Marshal(bad); err == nil {
		t.Error("an input that is no JSON is written")
	}
}

func TestDiffSchedule(t *testing.T) {
	t.Parallel()
	noon := time.Date(2027, 1, 1, 13, 0, 0, 0, time.FixedZone("CET", 3600))
	before := spec.Schedule{
		Name: "a", Cron: "0 3 * * *", Job: "a.x", Input: json.RawMessage(`{"b": 1, "a": [2.50]}`),
		Start: noon, Exclude: []string{"2027-12-25", "2027-12-24"}, Overlap: spec.Overlap{Policy: spec.OverlapAllow, Limit: 2}, Revision: 7,
	}
	same := before
	same.Input, same.Start, same.Revision = json.RawMessage(`{"a":[2.50],"b":1}`), noon.UTC(), 8
	same.Exclude = []string{"2027-12-24", "2027-12-25"}
	if got := spec.Diff(before, same); got != nil {
		t.Errorf("what is the same differs in %v", got)
	}
	after := spec.Schedule{
		Name: "a", Every: spec.Duration(time.Minute), Window: &spec.Window{From: "09:00", To: "17:00"}, Broadcast: "a.x", Done: "2",
		Selector: map[string]string{"role": "web", "disk": "fast"}, Input: json.RawMessage(`{"b":2}`),
		Misfire: spec.Misfire{Policy: spec.MisfireAll, Limit: 3, Window: spec.Duration(time.Hour)},
		At:      []time.Time{noon.Add(time.Hour), noon}, MaxRuns: 3, Paused: new(true),
	}
	want := []spec.Change{
		{Field: "cron", Old: "0 3 * * *"},
		{Field: "every", New: "1m"},
		{Field: "at", New: "2027-01-01T12:00:00Z, 2027-01-01T13:00:00Z"},
		{Field: "window.from", New: "09:00"},
		{Field: "window.to", New: "17:00"},
		{Field: "job", Old: "a.x"},
		{Field: "broadcast", New: "a.x"},
		{Field: "selector", New: "disk=fast, role=web"},
		{Field: "done", New: "2"},
		{Field: "input", Old: `{"a":[2.50],"b":1}`, New: `{"b":2}`},
		{Field: "misfire", New: "all, limit 3, window 1h"},
		{Field: "overlap", Old: "allow: 2"},
		{Field: "start", Old: "2027-01-01T12:00:00Z"},
		{Field: "exclude", Old: "2027-12-24, 2027-12-25"},
		{Field: "max_runs", New: "3"},
		{Field: "paused", New: "true"},
	}
	if diff := cmp.Diff(want, spec.Diff(before, after)); diff != "" {
		t.Error(diff)
	}
}

// Only what says when a schedule ticks makes its calendar another one.
func TestSameCalendar(t *testing.T) {
	t.Parallel()
	base := spec.Schedule{Name: "a", Every: spec.Duration(time.Minute), Window: &spec.Window{From: "09:00", To: "17:00"}, Job: "a.x"}
	for name, tt := range map[string]struct {
		edit func(*spec.Schedule)
		same bool
	}{
		"nothing": {func(*spec.Schedule) {}, true},
		"zone":    {func(s *spec.Schedule) { s.Zone = "UTC" }, true},
		"target":  {func(s *spec.Schedule) { s.Job, s.Queue, s.Jitter, s.Paused, s.Note = "a.y", "b", 1, new(true), "n" }, true},
		"another": {func(s *spec.Schedule) { s.Zone = "Europe/Berlin" }, false},
		"every":   {func(s *spec.Schedule) { s.Every *= 2 }, false},
		"cron":    {func(s *spec.Schedule) { s.Every, s.Cron = 0, "* * * * *" }, false},
		"after":   {func(s *spec.Schedule) { s.Every, s.After = 0, s.Every }, false},
		"window":  {func(s *spec.Schedule) { s.Window = nil }, false},
		"days":    {func(s *spec.Schedule) { s.Window = &spec.Window{From: "09:00", To: "17:00", Days: "mon"} }, false},
		"start":   {func(s *spec.Schedule) { s.Start = time.Unix(1, 0) }, false},
		"end":     {func(s *spec.Schedule) { s.End = time.Unix(1, 0) }, false},
		"at":      {func(s *spec.Schedule) { s.At = []time.Time{time.Unix(1, 0)} }, false},
		"exclude": {func(s *spec.Schedule) { s.Exclude = []string{"2027-12-24"} }, false},
	} {
		other := base
		tt.edit(&other)
		if base.SameCalendar(other) != tt.same || other.SameCalendar(base) != tt.same {
			t.Errorf("%s: the same is %v, want %v", name, !tt.same, tt.same)
		}
	}
}

// Policies in JSON that no document has are refused.
func TestPolicyJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"misfire":3}`, `{"misfire":{"all":3}}`, `{"misfire":["all"]}`,
		`{"overlap":3}`, `{"overlap":{}}`, `{"overlap":{"allow":1,"queue":2}}`, `{"overlap":{"allow":"1"}}`,
	} {
		var s spec.Schedule
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s is read as %+v", text, s)
		}
	}
}

func TestOverlapTurns(t *testing.T) {
	t.Parallel()
	for overlap, want := range map[spec.Overlap][2]int{
		{}: {0, 0}, {Policy: spec.OverlapAllow}: {0, 0}, {Policy: spec.OverlapAllow, Limit: 3}: {3, 0}, {Policy: spec.OverlapSkip}: {1, 0},
		{Policy: spec.OverlapQueue, Limit: 5}: {1, 5}, {Policy: spec.OverlapCancelPrevious}: {1, 1},
	} {
		if most, wait := overlap.Turns(); most != want[0] || wait != want[1] || overlap.Bounded() != (most > 0) {
			t.Errorf("%v: %d go on and %d wait, bounded: %v; want %d and %d", overlap, most, wait, overlap.Bounded(), want[0], want[1])
		}
	}
}

// What a schedule makes, and where it waits.
func TestScheduleTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		schedule    spec.Schedule
		kind, queue string
	}{
		{spec.Schedule{Job: "report.build"}, "report.build", "report"},
		{spec.Schedule{Broadcast: "cache.flush"}, "cache.flush", "cache"},
		{spec.Schedule{Job: "report.build", Queue: "slow"}, "report.build", "slow"},
	} {
		if kind, queue := tt.schedule.TargetKind(), tt.schedule.TargetQueue(); kind != tt.kind || queue != tt.queue {
			t.Errorf("%+v makes %s in %s, want %s in %s", tt.schedule, kind, queue, tt.kind, tt.queue)
		}
	}
}
