package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

// when says at which times a schedule ticks.
func when(s engine.ScheduleInfo) string {
	if s.Definition == nil {
		return ""
	}
	d := s.Definition
	switch {
	case d.Cron != "":
		return strings.TrimSpace(d.Cron + " " + d.Zone)
	case d.Window != nil:
		return fmt.Sprintf("every %v, %s", d.Every, words(d.Window.From, "to", d.Window.To, d.Window.Days, d.Zone))
	case d.Every > 0:
		return fmt.Sprintf("every %v", d.Every)
	case d.After > 0:
		return fmt.Sprintf("%v after the last", d.After)
	case len(d.At) == 1:
		return "at " + show.Time(&d.At[0])
	}
	return show.Count(len(d.At), "time")
}

// words joins what there is of them.
func words(all ...string) string {
	return strings.Join(strings.Fields(strings.Join(all, " ")), " ")
}

// makes says what the jobs of a schedule are.
func makes(s engine.ScheduleInfo) string {
	switch s.Target {
	case "broadcast":
		return "broadcast " + s.Kind
	case "shards":
		return fmt.Sprintf("%s in %s", s.Kind, show.Count(s.Definition.Shards, "shard"))
	}
	return s.Kind
}

// overlap says how many jobs of a schedule go on and wait, of how many.
func overlap(s engine.ScheduleInfo) string {
	if s.Definition == nil || s.Definition.Overlap.Policy == "" {
		return ""
	}
	words := s.Definition.Overlap.String()
	if len(s.Running) > 0 {
		words += fmt.Sprintf(", %d running", len(s.Running))
	}
	if len(s.Waiting) > 0 {
		words += fmt.Sprintf(", %d waiting", len(s.Waiting))
	}
	return words
}

// scheduleFields is what is known of a schedule, for people.
func scheduleFields(s engine.ScheduleInfo) []field {
	fields := []field{
		{"schedule", s.Name},
		{"state", string(s.State)},
		{"note", s.Note},
		{"when", when(s)},
		{"makes", makes(s)},
		{"queue", s.Queue},
	}
	if s.Definition != nil {
		fields = append(fields, definitionFields(*s.Definition)...)
	}
	return append(fields,
		field{"next", nextTick(s)},
		field{"last", words(show.Time(s.LastAt), deref(s.LastJob))},
		field{"ticks", strconv.FormatInt(s.Number, 10)},
		field{"jobs", strconv.FormatInt(s.Made, 10)},
		field{"failures", onlyIf(s.Failures > 0, strconv.Itoa(s.Failures)+" in a row")},
		field{"running", strings.Join(s.Running, ", ")},
		field{"waiting", strings.Join(s.Waiting, ", ")},
		field{"changed", show.Time(s.Changed)},
		field{"revision", strconv.FormatUint(s.Revision, 10)},
		field{"problem", s.Problem},
	)
}

// nextTick says when the next tick is, or after what.
func nextTick(s engine.ScheduleInfo) string {
	if s.Next == nil && s.State == engine.ScheduleActive {
		return fmt.Sprintf("%v after the end of the last", s.Definition.After)
	}
	return show.Time(s.Next)
}

// definitionFields is what people have said of a schedule beyond when and what.
func definitionFields(d engine.Schedule) []field {
	number := func(n int64, unit string) string { return onlyIf(n > 0, strconv.FormatInt(n, 10)+unit) }
	return []field{
		{"selector", labels(d.Selector)},
		{"done", d.Done},
		{"on lost", d.OnLost},
		{"parallel", number(int64(d.MaxParallel), "")},
		{"class", d.Class},
		{"attempts", number(int64(d.MaxAttempts), "")},
		{"deadline", onlyIf(d.Deadline > 0, d.Deadline.String())},
		{"queue timeout", onlyIf(d.QueueTimeout > 0, d.QueueTimeout.String())},
		{"start", set(d.Start)},
		{"end", set(d.End)},
		{"exclude", strings.Join(d.Exclude, ", ")},
		{"jitter", onlyIf(d.Jitter > 0, "up to "+d.Jitter.String())},
		{"max runs", number(d.MaxRuns, "")},
		{"halts after", number(int64(d.PauseAfterFailures), " failures in a row")},
		{"input", string(d.Input)},
		{"misfire", d.Misfire.String()},
		{"overlap", d.Overlap.String()},
	}
}

// set returns a time, or nothing if it is not set.
func set(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return show.Time(&at)
}
