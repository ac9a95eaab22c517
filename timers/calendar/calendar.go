package calendar

import "time"

// Calendar is a compiled [Rule]. It does not change, and any number of goroutines
// may use it.
type Calendar struct{ zone *time.Location }

// Compile checks a rule. Every error is a [*FieldError].
func Compile(Rule) (*Calendar, error) { return &Calendar{zone: time.UTC}, nil }

// Zone is the time zone of the calendar.
func (c *Calendar) Zone() *time.Location { return c.zone }

// Next returns the first tick that is after a moment, in UTC, or zero if there is
// none. A fixed delay has none.
func (c *Calendar) Next(time.Time) time.Time { return time.Time{} }

// Has reports whether t is a tick. By a fixed delay any time may be one that is
// within start and end and not on an excluded date.
func (c *Calendar) Has(time.Time) bool { return false }

// Open returns the first moment, not before t, that is within start and end and not
// on an excluded date, in UTC, or zero if there is none: the earliest tick of a
// fixed delay that is over at t.
func (c *Calendar) Open(time.Time) time.Time { return time.Time{} }

// Count returns how many ticks are after one moment and not after another, and the
// last of them, in UTC.
func (c *Calendar) Count(_, _ time.Time) (n int64, last time.Time) { return 0, time.Time{} }
