package calendar

import (
	"math"
	"time"
)

// A wall clock time is in seconds since the clock on the wall showed the Unix epoch.
// Moments are in seconds too here, by the clock of UTC.

const daySeconds = 24 * 60 * 60

// twoDays is more than clocks have ever been set back or forward at once, and more
// than two clocks differ.
const twoDays = 2 * daySeconds

// even is a stretch of time in which the clock of a zone goes evenly.
type even struct{ from, to, offset int64 }

// evenly returns such a stretch that a moment lies in. There may be another one
// with the same offset before it, or behind it.
func evenly(zone *time.Location, unix int64) even {
	t := time.Unix(unix, 0).In(zone)
	_, offset := t.Zone()
	e := even{from: math.MinInt64 / 2, to: math.MaxInt64 / 2, offset: int64(offset)}
	from, to := t.ZoneBounds()
	if !from.IsZero() {
		e.from = from.Unix()
	}
	if !to.IsZero() {
		e.to = to.Unix()
	}
	if e.to <= unix { // beyond the table, the time package forgets the last day of a leap year
		e.from = floorDiv(unix, daySeconds) * daySeconds
		e.to = e.from + daySeconds
	}
	return e
}

// unseen returns the first wall clock time that the clock of a zone has not reached
// by the end of a second. What was seen in autumn before the clock was set back is
// not to come again.
func unseen(zone *time.Location, unix int64) int64 {
	e := evenly(zone, unix)
	first := unix + 1 + e.offset
	for e.from > unix-twoDays {
		set := e.from
		e = evenly(zone, set-1)
		first = max(first, set+e.offset)
	}
	return first
}

// reached returns when the clock of a zone first shows a wall clock time, or first
// shows a later one because it was set forward.
func reached(zone *time.Location, wall int64) int64 {
	for e := evenly(zone, wall-twoDays); ; e = evenly(zone, e.to) {
		switch {
		case e.from+e.offset >= wall:
			return e.from
		case wall-e.offset < e.to:
			return wall - e.offset
		}
	}
}
