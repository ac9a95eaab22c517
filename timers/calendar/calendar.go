package calendar

import (
	"math"
	"slices"
	"time"
)

// Calendar is a compiled [Rule]. It does not change, and any number of goroutines
// may use it.
type Calendar struct {
	zone       *time.Location
	ticks      ticks   // nil for a fixed delay
	start, end moment  // no tick is before start, nor at or after end
	excluded   []int64 // days since the Unix epoch, in order
}

// ticks are those of a rule, without its bounds and excluded dates.
type ticks interface {
	// next returns the first tick that is after a moment, or never.
	next(after moment) moment
	// count returns how many ticks are after one moment and not after another.
	count(after, until moment) int64
}

// A moment is in milliseconds since the Unix epoch. All ticks are whole ones.
type moment int64

const (
	never    moment = math.MaxInt64
	earliest moment = -62135596800000 // the beginning of the year 1
	latest   moment = 253402300800000 // the beginning of the year 10000, which JSON cannot say
	second   moment = 1000
)

// momentOf returns the moment that t lies in. A tick is after t if, and only if, it
// is after that.
func momentOf(t time.Time) moment { return moment(t.UnixMilli()) }

// notBefore returns the first moment that is not before t.
func notBefore(t time.Time) moment {
	m := momentOf(t)
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		m++
	}
	return m
}

// unix returns the second that m lies in, since the Unix epoch.
func (m moment) unix() int64 { return floorDiv(int64(m), int64(second)) }

// time returns m in UTC, and zero for never.
func (m moment) time() time.Time {
	if m == never {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}

// Zone is the time zone of the calendar.
func (c *Calendar) Zone() *time.Location { return c.zone }

// Next returns the first tick that is after a moment, in UTC, or zero if there is
// none. A fixed delay has none. It allocates nothing, and takes well below a
// microsecond as a rule; an expression whose days are years apart takes longer.
func (c *Calendar) Next(after time.Time) time.Time { return c.next(momentOf(after)).time() }

// Has reports whether t is a tick. By a fixed delay any time may be one that is
// within start and end and not on an excluded date.
func (c *Calendar) Has(t time.Time) bool {
	m := notBefore(t)
	if c.ticks == nil {
		return c.open(m) == m
	}
	return m == momentOf(t) && c.next(m-1) == m
}

// Open returns the first moment, not before t, that is within start and end and not
// on an excluded date, in UTC, or zero if there is none: the earliest tick of a
// fixed delay that is over at t.
func (c *Calendar) Open(t time.Time) time.Time { return c.open(notBefore(t)).time() }

func (c *Calendar) next(after moment) moment {
	if c.ticks == nil {
		return never
	}
	for after = max(after, c.start-1); after < c.end; {
		tick := c.ticks.next(after)
		if tick >= c.end {
			break
		}
		open := c.open(tick)
		if open == tick {
			return tick
		}
		after = open - 1
	}
	return never
}

// open returns the first moment, not before m, that is within the bounds and not
// excluded.
func (c *Calendar) open(m moment) moment {
	m = max(m, c.start)
	for m < c.end {
		if len(c.excluded) == 0 {
			return m
		}
		even := evenly(c.zone, m.unix())
		day := floorDiv(m.unix()+even.offset, daySeconds)
		if _, found := slices.BinarySearch(c.excluded, day); !found {
			return m
		}
		m = moment(min((day+1)*daySeconds-even.offset, even.to)) * second
	}
	return never
}

// floorDiv divides and rounds down, also what is below zero.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
