package calendar

import "time"

// Count returns how many ticks are after one moment and not after another, and the
// last of them, in UTC. The ticks are not looked at one by one: the work grows with
// the months, the changes of the clocks and the excluded dates in between, for a
// rate with the excluded dates only, and for a window with the days.
func (c *Calendar) Count(after, until time.Time) (n int64, last time.Time) {
	from, to := max(momentOf(after), c.start-1), min(momentOf(until), c.end-1)
	if c.ticks == nil || from >= to {
		return 0, time.Time{}
	}
	n = c.ticks.count(from, to)
	for _, day := range c.excluded {
		n -= c.lost(day, from, to)
	}
	if n == 0 {
		return 0, time.Time{}
	}
	return n, c.last(from, to).time()
}

// lost returns how many ticks are on a date. A clock that is set back at midnight
// can show a date twice.
func (c *Calendar) lost(day int64, after, until moment) (n int64) {
	for unix := day*daySeconds - twoDays; unix < (day+1)*daySeconds+twoDays; {
		even := evenly(c.zone, unix)
		from := moment(max(day*daySeconds-even.offset, even.from))*second - 1
		to := moment(min((day+1)*daySeconds-even.offset, even.to))*second - 1
		if from, to = max(from, after), min(to, until); from < to {
			n += c.ticks.count(from, to)
		}
		unix = even.to
	}
	return n
}

// last returns the last tick that is after one moment and not after another, where
// there is one. It is the next one after the last moment that has one.
func (c *Calendar) last(after, until moment) moment {
	for until-after > 1 {
		if half := after + (until-after)/2; c.next(half) <= until {
			after = half
		} else {
			until = half
		}
	}
	return c.next(after)
}
