package spec

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/timers/calendar"
)

// Schedule says when jobs are made without anybody asking for them. Exactly one of
// Cron, Every, After and At says when, and one of Job and Broadcast what.
type Schedule struct {
	// Name is one token. It is required.
	Name string `json:"name"`

	// Cron is an expression of five fields, or of six with the seconds first, or an
	// alias such as @daily.
	Cron string `json:"cron,omitempty"`

	// Every is the distance of two ticks, 100ms or more. They are aligned to Start,
	// or else to the Unix epoch, or to the beginning of Window.
	Every Duration `json:"every,omitzero"`

	// After is how long after the end of its last job the schedule ticks again,
	// 100ms or more.
	After Duration `json:"after,omitzero"`

	// At are the only ticks there are.
	At []time.Time `json:"at,omitempty"`

	// Window bounds Every to a part of the day. Default: the whole of it.
	Window *Window `json:"window,omitempty"`

	// Zone is the time zone of Cron, Window and Exclude, such as Europe/Berlin.
	// Default: UTC.
	Zone string `json:"zone,omitempty"`

	// Job is the kind of the jobs.
	Job string `json:"job,omitempty"`

	// Broadcast is the kind of the jobs, each of which is one for every node that
	// matches.
	Broadcast string `json:"broadcast,omitempty"`

	// Workflow is refused: there are no workflows yet.
	Workflow string `json:"workflow,omitempty"`

	// Selector are labels that the nodes of a broadcast or of a sharded job must
	// have. Default: all nodes that run the kind.
	Selector map[string]string `json:"selector,omitempty"`

	// OnLost is what becomes of the part of a node that is gone, [LostFails] or
	// [LostWaits], which needs a deadline. Default: LostFails.
	OnLost string `json:"on_lost,omitempty"`

	// Done is when a broadcast succeeds: all, quorum, any or a number of parts.
	// Default: all.
	Done string `json:"done,omitempty"`

	// MaxParallel is how many nodes have their parts of a broadcast at a time.
	// Default: all of them.
	MaxParallel int `json:"max_parallel,omitempty"`

	// Shards makes the job a sharded one, of so many pieces.
	Shards int `json:"shards,omitempty"`

	// Queue is where the jobs wait. Default: the queue of the kind.
	Queue string `json:"queue,omitempty"`

	// Class is the class of priority: high, normal or low. Default: normal.
	Class string `json:"class,omitempty"`

	// MaxAttempts is how many failures end a job. Default: as for any job.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// Deadline is after how long a job fails if it has not ended, and QueueTimeout
	// if no attempt has started, from when it may start. Default: never.
	Deadline     Duration `json:"deadline,omitzero"`
	QueueTimeout Duration `json:"queue_timeout,omitzero"`

	// Input is the input of the jobs, JSON; its strings may have expressions: see
	// [Template]. Default: null.
	Input json.RawMessage `json:"input,omitempty"`

	// Misfire is what becomes of ticks that were found more than a minute late.
	Misfire Misfire `json:"misfire,omitzero"`

	// Overlap bounds how many jobs of the schedule go on at a time.
	Overlap Overlap `json:"overlap,omitzero"`

	// Jitter is how much later than its tick a job may be due: each by its own
	// share of it, which follows from the tick. Default: none.
	Jitter Duration `json:"jitter,omitzero"`

	// Start is when the first tick may be, and End is after the last one. Default:
	// no bound.
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`

	// Exclude are dates in the zone without ticks, such as 2027-12-24.
	Exclude []string `json:"exclude,omitempty"`

	// MaxRuns is after how many jobs the schedule has ended; those that were
	// skipped, or that the clock did not make, are not counted. Default: never.
	MaxRuns int64 `json:"max_runs,omitempty"`

	// PauseAfterFailures is after how many failed or lost jobs in a row the
	// schedule halts. Default: never.
	PauseAfterFailures int `json:"pause_after_failures,omitempty"`

	// Paused keeps the schedule from ticking. A definition that does not say
	// leaves it as it is, so that applying a file does not undo what somebody did
	// for a reason.
	Paused *bool `json:"paused,omitempty"`

	// Note is for people, such as why it is paused.
	Note string `json:"note,omitempty"`

	// Revision is that of the definition which an edit is to replace. It is not
	// part of the definition. Default: whichever is there.
	Revision uint64 `json:"revision,omitempty"`
}

// Window is a part of the day, by the clock of the schedule's zone. The first tick
// of a day is at From, the last one not after To.
type Window struct {
	// From and To are times of the day, such as 09:00 or 09:00:30. To may be 24:00,
	// and is on the next day if it is before From.
	From string `json:"from"`
	To   string `json:"to"`
	// Days are the days of the week on which the window begins, such as mon-fri,sun.
	// Default: all of them.
	Days string `json:"days,omitempty"`
}

// What can become of the part of a node that is gone.
const (
	LostFails = "fail" // it ends as lost
	LostWaits = "wait" // it waits for that node, until the deadline
)

// Kind returns "Schedule".
func (Schedule) Kind() string { return "Schedule" }

// Key returns the key of the schedule in the config bucket.
func (s Schedule) Key() string { return "schedule." + s.Name }

// IsPaused reports whether the schedule is kept from ticking.
func (s Schedule) IsPaused() bool { return s.Paused != nil && *s.Paused }

// TargetKind returns the kind of the jobs.
func (s Schedule) TargetKind() string {
	if s.Broadcast != "" {
		return s.Broadcast
	}
	return s.Job
}

// TargetQueue returns where the jobs wait.
func (s Schedule) TargetQueue() string {
	if s.Queue != "" {
		return s.Queue
	}
	return name.Queue(s.TargetKind())
}

// Rule returns when the schedule ticks. That of a fixed delay has neither Cron nor
// Every nor At.
func (s Schedule) Rule() calendar.Rule {
	if len(s.At) == 0 {
		s.At = nil
	}
	return calendar.Rule{
		Cron: s.Cron, Every: time.Duration(s.Every), Window: (*calendar.Window)(s.Window), At: s.At,
		Zone: s.Zone, Start: s.Start, End: s.End, Exclude: s.Exclude,
	}
}

// SameCalendar reports whether both schedules tick at the same times.
func (s Schedule) SameCalendar(other Schedule) bool {
	return slices.Equal(s.calendarTexts(), other.calendarTexts())
}

// calendarTexts returns the fields that say when the schedule ticks.
func (s Schedule) calendarTexts() (texts []string) {
	s.Zone = cmp.Or(s.Zone, time.UTC.String())
	for _, e := range leaves("", s.fields()) {
		field, _, _ := strings.Cut(e.name, ".")
		if slices.Contains(calendarNames, field) {
			texts = append(texts, e.text())
		}
	}
	return texts
}

// MarshalJSON writes the schedule as a document that [Parse] reads.
func (s Schedule) MarshalJSON() ([]byte, error) {
	type fields Schedule
	if string(s.Input) == "null" {
		s.Input = nil
	}
	s.Start, s.End, s.At = s.Start.UTC(), s.End.UTC(), slices.Clone(s.At)
	for i := range s.At {
		s.At[i] = s.At[i].UTC()
	}
	return tryEncode(struct {
		Kind string `json:"kind"`
		fields
	}{s.Kind(), fields(s)})
}

// Validate reports everything that is wrong with a schedule that did not come from
// [Parse], as [Problems].
func (s Schedule) Validate() error {
	_, err := s.Template()
	return err
}

func readSchedule(r *reader) Document {
	s := Schedule{Window: &Window{}}
	r.read(s.fields())
	if _, given := r.fields["window"]; !given || r.blamed["window"] {
		s.Window = nil
	}
	r.blamed[whenField] = slices.ContainsFunc(whenNames, r.isBlamed)
	r.blamed[targetField] = slices.ContainsFunc(targetNames, r.isBlamed)
	_, faults := s.compile()
	r.report(faults)
	return s
}

// entries returns what is part of the definition: all fields but the revision.
func (s Schedule) entries() []entry {
	all := s.fields()
	return all[:len(all)-1]
}

func (s *Schedule) fields() []entry {
	return []entry{
		{"name", &s.Name},
		{"cron", &s.Cron},
		{"every", &s.Every},
		{"after", &s.After},
		{"at", times{&s.At}},
		{"window", cmp.Or(s.Window, &Window{}).fields()},
		{"zone", &s.Zone},
		{"job", &s.Job},
		{"broadcast", &s.Broadcast},
		{"workflow", &s.Workflow},
		{"selector", labels{&s.Selector}},
		{"on_lost", &s.OnLost},
		{"done", goal{&s.Done}},
		{"max_parallel", &s.MaxParallel},
		{"shards", &s.Shards},
		{"queue", &s.Queue},
		{"class", &s.Class},
		{"max_attempts", &s.MaxAttempts},
		{"deadline", &s.Deadline},
		{"queue_timeout", &s.QueueTimeout},
		{"input", input{&s.Input}},
		{"misfire", &s.Misfire},
		{"overlap", &s.Overlap},
		{"jitter", &s.Jitter},
		{"start", &s.Start},
		{"end", &s.End},
		{"exclude", texts{&s.Exclude}},
		{"max_runs", &s.MaxRuns},
		{"pause_after_failures", &s.PauseAfterFailures},
		{"paused", &s.Paused},
		{"note", &s.Note},
		{"revision", &s.Revision},
	}
}

func (w *Window) fields() []entry {
	return []entry{
		{"from", &w.From},
		{"to", &w.To},
		{"days", &w.Days},
	}
}
