package calendar

import "time"

// expression is a compiled cron expression: the ticks are when the clock of the zone
// reaches, or shows, one of the times that the fields stand for.
type expression struct {
	fields
	zone *time.Location
}

func (e *expression) next(after moment) moment {
	if e.hourly {
		return e.nextShown(after.unix())
	}
	wall, ok := e.from(unseen(e.zone, after.unix()))
	if !ok {
		return never
	}
	return moment(reached(e.zone, wall)) * second
}

// nextShown returns when the clock shows one of the times again, after a second.
func (e *expression) nextShown(after int64) moment {
	for unix := after + 1; ; {
		even := evenly(e.zone, unix)
		wall, ok := e.from(unix + even.offset)
		if !ok {
			return never
		}
		if wall-even.offset < even.to {
			return moment(wall-even.offset) * second
		}
		if even.to-unix > twoDays { // what is shown again, if anything, has been looked at
			unix = wall - twoDays
		}
		unix = max(unix, even.to)
	}
}

// count looks at each month and at each change of the clocks once.
func (e *expression) count(after, until moment) (n int64) {
	from, to := after.unix()+1, until.unix()+1
	if !e.hourly {
		n = e.fields.count(unseen(e.zone, from-1), unseen(e.zone, to-1))
	}
	for from < to {
		even := evenly(e.zone, from)
		end := min(to, even.to)
		switch {
		case e.hourly:
			n += e.fields.count(from+even.offset, end+even.offset)
		case even.from == from:
			n -= e.merged(even)
		}
		from = end
	}
	return n
}

// merged returns how many times tick together with another one when the clock is
// set, because they were skipped.
func (e *expression) merged(set even) int64 {
	return max(e.fields.count(unseen(e.zone, set.from-1), set.from+set.offset+1)-1, 0)
}
