package calendar

import "time"

// Rule says when a schedule ticks, as people write it. Exactly one of Cron, Every
// and At is set, or none: then the schedule waits a fixed delay after each job, and
// only Start, End and Exclude bound it.
type Rule struct {
	// Cron is an expression of five fields, or of six with the seconds first, or an
	// alias such as @daily.
	Cron string
	// Every is the distance of two ticks, at least [Shortest] and in whole
	// milliseconds. Ticks are aligned to Start, or else to the Unix epoch, or else
	// to the beginning of Window: never to when the rule was applied, so that all of
	// them follow from the rule.
	Every time.Duration
	// Window bounds Every to a part of the day.
	Window *Window
	// At are the ticks, in any order. They are rounded up to whole milliseconds.
	At []time.Time
	// Zone is the name of a time zone, such as Europe/Berlin. Empty means UTC.
	Zone string
	// Start is when the first tick may be, and End is after the last one. Zero means
	// no bound.
	Start, End time.Time
	// Exclude are dates in the zone, such as 2027-12-24, without ticks.
	Exclude []string
}

// Window is a part of the day, by the clock of the zone. The first tick is at From,
// the last one not after To.
type Window struct {
	// From and To are times of the day, such as 09:00 or 09:00:30. To may be 24:00. A
	// To before From is on the next day.
	From, To string
	// Days are the days of the week on which a window begins, such as mon-fri,sun.
	// Empty means all.
	Days string
}

// Shortest is the least [Rule.Every].
const Shortest = 100 * time.Millisecond

// FieldError says which field of a rule is wrong.
type FieldError struct {
	// Field is its path in the document, such as cron, window.from or exclude[1].
	Field string
	// Message is what is wrong with it, and what to do.
	Message string
}

// Error says both in one line.
func (e *FieldError) Error() string { return e.Field + ": " + e.Message }
