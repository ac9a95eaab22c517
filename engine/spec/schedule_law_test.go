package spec_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/timers/calendar"
	"pgregory.net/rapid"
)

// schedules draws schedules that are valid.
func schedules() *rapid.Generator[spec.Schedule] {
	return rapid.Custom(func(t *rapid.T) spec.Schedule {
		s := spec.Schedule{
			Name:               rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "name"),
			Zone:               rapid.SampledFrom([]string{"", "UTC", "Europe/Berlin"}).Draw(t, "zone"),
			Queue:              rapid.StringMatching(`[a-z]{0,8}`).Draw(t, "queue"),
			MaxAttempts:        rapid.IntRange(0, 9).Draw(t, "attempts"),
			Deadline:           milliseconds(t, "deadline"),
			Jitter:             spec.Duration(rapid.Int64Range(0, 100).Draw(t, "jitter") * int64(time.Millisecond)),
			Exclude:            rapid.SampledFrom([][]string{nil, {"2027-12-24"}, {"2027-12-24", "2028-02-29"}}).Draw(t, "exclude"),
			MaxRuns:            rapid.Int64Range(0, 1<<60).Draw(t, "runs"),
			PauseAfterFailures: rapid.IntRange(0, 9).Draw(t, "failures"),
			Paused:             rapid.SampledFrom([]*bool{nil, new(true), new(false)}).Draw(t, "paused"),
			Note:               rapid.SampledFrom([]string{"", "yes", "\"1\": - # ü\n\t'", "7", "null"}).Draw(t, "note"),
			Revision:           rapid.Uint64Range(0, 1<<62).Draw(t, "revision"),
			Misfire: rapid.SampledFrom([]spec.Misfire{
				{}, {Policy: "skip"}, {Policy: "once"}, {Policy: "all"}, {Policy: "all", Limit: 3}, {Policy: "all", Window: spec.Duration(time.Hour)},
			}).Draw(t, "misfire"),
			Overlap: rapid.SampledFrom([]spec.Overlap{
				{}, {Policy: "skip"}, {Policy: "allow"}, {Policy: "allow", Limit: 2}, {Policy: "queue", Limit: 3}, {Policy: "cancel-previous"},
			}).Draw(t, "overlap"),
		}
		if rapid.Bool().Draw(t, "input") {
			data, err := json.Marshal(inputs(3).Draw(t, "value"))
			if err != nil {
				t.Fatal(err)
			}
			if string(data) != "null" {
				s.Input = data
			}
		}
		drawWhen(t, &s)
		drawTarget(t, &s)
		return s
	})
}

func milliseconds(t *rapid.T, label string) spec.Duration {
	return spec.Duration(rapid.Int64Range(0, 1e12).Draw(t, label) * int64(time.Millisecond))
}

func drawWhen(t *rapid.T, s *spec.Schedule) {
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "moment")).UTC()
	})
	switch rapid.IntRange(0, 4).Draw(t, "when") {
	case 0:
		s.Cron = rapid.SampledFrom([]string{"* * * * *", "*/5 0 3 * * MON-FRI", "@daily", "0 0 L * *"}).Draw(t, "cron")
	case 1:
		s.Every = milliseconds(t, "every") + spec.Duration(calendar.Shortest)
	case 2:
		s.After = milliseconds(t, "after") + spec.Duration(calendar.Shortest)
	case 3:
		s.At = rapid.SliceOfN(moment, 1, 4).Draw(t, "at")
	case 4:
		s.Every = spec.Duration(time.Minute)
		s.Window = &spec.Window{From: "09:00", To: "17:30:15", Days: rapid.SampledFrom([]string{"", "mon-fri"}).Draw(t, "days")}
	}
	if rapid.Bool().Draw(t, "starts") {
		s.Start = moment.Draw(t, "start")
	}
	if rapid.Bool().Draw(t, "ends") {
		s.End = s.Start.Add(time.Duration(milliseconds(t, "lasts")) + time.Millisecond).Add(50 * 365 * 24 * time.Hour)
		if s.Start.IsZero() {
			s.End = moment.Draw(t, "end").Add(time.Millisecond)
		}
	}
}

func drawTarget(t *rapid.T, s *spec.Schedule) {
	kind := rapid.StringMatching(`[a-z]{1,8}(\.[a-z0-9_-]{1,8}){0,2}`).Draw(t, "kind")
	labels := rapid.MapOfN(rapid.StringMatching(`[a-z .:"']{1,5}`), rapid.StringMatching(`[a-z0-9~ ]{0,5}`), 1, 3)
	switch rapid.IntRange(0, 2).Draw(t, "target") {
	case 0:
		s.Job = kind
		s.Class = rapid.SampledFrom([]string{"", "high", "normal", "low"}).Draw(t, "class")
		s.QueueTimeout = milliseconds(t, "timeout")
	case 1:
		s.Job = kind
		s.Shards = rapid.IntRange(1, 1024).Draw(t, "shards")
		s.Selector = labels.Draw(t, "selector")
	case 2:
		s.Broadcast = kind
		s.Selector = labels.Draw(t, "selector")
		s.Done = rapid.SampledFrom([]string{"", "all", "quorum", "any", "1", "17"}).Draw(t, "done")
		s.MaxParallel = rapid.IntRange(0, 9).Draw(t, "parallel")
		if s.Deadline != 0 {
			s.OnLost = rapid.SampledFrom([]string{"", "fail", "wait"}).Draw(t, "lost")
		}
	}
}

// inputs draws values that JSON has, up to a depth.
func inputs(depth int) *rapid.Generator[any] {
	text := rapid.OneOf(
		rapid.SampledFrom([]string{"", "a", "~", "null", "true", "1e3", "0x10", "12345678901234567890123", "2027-01-01", "- a", "a: b", "#", "\"", "\\", "\n", "ü😀", "<>", "\u2028", "$"}),
		rapid.StringMatching(`[ -#%-~]{0,12}`))
	plain := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(text, func(s string) any { return s }),
		rapid.Map(rapid.SampledFrom([]string{"0", "-1", "1.50", "1e3", "-2.5E-7", "12345678901234567890123", "9223372036854775808", "0.1e+2", "1e999"}),
			func(n string) any { return json.RawMessage(n) }),
	)
	if depth == 0 {
		return plain
	}
	return rapid.OneOf(
		plain,
		rapid.Map(rapid.SliceOfN(inputs(depth-1), 0, 3), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(text, inputs(depth-1), 0, 3), func(m map[string]any) any { return m }),
	)
}

// A schedule comes back as it was from its JSON, through the parser of documents as
// through that of Go, and its input is rendered as it was.
func TestScheduleJSONLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := schedules().Draw(t, "schedule")
		if err := want.Validate(); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := spec.Parse("f.json", data)
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		if len(docs) != 1 || !same(want, docs[0].(spec.Schedule)) {
			t.Errorf("%s is parsed as another:\n%s", data, cmp.Diff([]spec.Document{want}, docs))
		}
		var got spec.Schedule
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if !same(want, got) {
			t.Errorf("%s is read as another:\n%s", data, cmp.Diff(want, got))
		}
		if !got.SameCalendar(want) || spec.Diff(want, got) != nil {
			t.Errorf("%s differs from itself", data)
		}
		template, err := got.Template()
		if err != nil {
			t.Fatal(err)
		}
		out, err := template.Render(time.UnixMilli(1), 1)
		if err != nil || string(out) != string(got.Input) {
			t.Errorf("the input %s is rendered as %s, %v", got.Input, out, err)
		}
	})
}

// same reports whether two schedules are the same, their inputs as values.
func same(a, b spec.Schedule) bool {
	x, y := spec.Diff(spec.Schedule{}, spec.Schedule{Input: a.Input}), spec.Diff(spec.Schedule{}, spec.Schedule{Input: b.Input})
	a.Input, b.Input = nil, nil
	return slices.Equal(x, y) && cmp.Equal(a, b)
}

// Whatever a stored definition is, it is refused, or it has an input for its ticks
// and is written so that it is read again as the same.
func FuzzSchedule(f *testing.F) {
	f.Add([]byte(`{"name":"a","cron":"0 3 * * *","zone":"Europe/Berlin","job":"a.x","input":{"a":"${tick.time}, ${tick.number + 1}","b":["${[tick.date]}","$${"]}}`))
	f.Add([]byte(`{"name":"a","every":"1m","window":{"from":"09:00","to":"17:00"},"broadcast":"a.x","done":"2","selector":{"a":"b"},"misfire":{"all":{"limit":3,"window":"1h"}},"overlap":{"queue":3}}`))
	f.Add([]byte(`{"name":"a","after":"1s","job":"a.x","shards":3,"start":"2027-01-01T00:00:00+01:00","misfire":"all","overlap":"allow: 2","revision":1,"paused":false,"note":"\u2028"}`))
	f.Add([]byte(`{"name":"a","at":["2027-01-01T00:00:00.5Z"],"exclude":["2027-12-24"],"job":"a.x","input":"${duration('1h')}"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s spec.Schedule
		if json.Unmarshal(data, &s) != nil {
			return
		}
		if err := s.Validate(); err != nil {
			if slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(line string) bool { return !strings.HasPrefix(line, "schedule ") }) {
				t.Errorf("a problem is not one line: %q", err)
			}
			return
		}
		template, err := s.Template()
		if err != nil {
			t.Fatal(err)
		}
		out, err := template.Render(time.UnixMilli(1_800_000_000_000), 7)
		if err != nil && strings.ContainsAny(err.Error(), "\n\r") || err == nil && len(out) > 0 && !json.Valid(out) {
			t.Errorf("the input %q, %v", out, err)
		}
		written, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again spec.Schedule
		if err := json.Unmarshal(written, &again); err != nil || spec.Diff(s, again) != nil {
			t.Errorf("%s is read as %+v, %v", written, again, err)
		}
		if err := again.Validate(); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkReadSchedule is what a stored definition costs when an owner reads it.
func BenchmarkReadSchedule(b *testing.B) {
	for name, data := range map[string]string{
		"every": `{"kind":"Schedule","name":"a","every":"5m","job":"a.x","input":{"kind":"full"}}`,
		"cron":  `{"kind":"Schedule","name":"a","cron":"*/5 8-18 * * mon-fri","zone":"Europe/Berlin","job":"a.x","overlap":"skip","misfire":{"all":{"limit":3}},"exclude":["2027-12-24"]}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var s spec.Schedule
				if err := json.Unmarshal([]byte(data), &s); err != nil {
					b.Fatal(err)
				}
				if err := s.Validate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
