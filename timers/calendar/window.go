package calendar

import "time"

// window ticks every so often in a part of the day: each day begins anew.
type window struct {
	every    moment
	from, to int64 // seconds of the day; to may be on the next one
	weekdays uint8 // on which a window begins; bit 0 is Sunday
	zone     *time.Location
}

// on returns the rate of the window that begins on a day, and the last moment of it,
// or false if none does. Windows are in order, and at most touch each other.
func (w *window) on(day int64) (r rate, last moment, ok bool) {
	if w.weekdays>>month.weekday(month{first: day}, 1)&1 == 0 {
		return rate{}, 0, false
	}
	first := moment(reached(w.zone, day*daySeconds+w.from)) * second
	last = moment(reached(w.zone, day*daySeconds+w.to)) * second
	return rate{every: w.every, anchor: first}, last, true
}

// since returns a day before which all windows have ended by a moment.
func (w *window) since(m moment) int64 {
	unix := m.unix()
	return floorDiv(unix+evenly(w.zone, unix).offset, daySeconds) - w.to/daySeconds
}

func (w *window) next(after moment) moment {
	for day := w.since(after); ; day++ {
		rate, last, ok := w.on(day)
		if !ok || last <= after {
			continue
		}
		if tick := rate.next(max(after, rate.anchor-1)); tick <= last {
			return tick
		}
	}
}

// count looks at each day once.
func (w *window) count(after, until moment) (n int64) {
	for day := w.since(after); ; day++ {
		rate, last, ok := w.on(day)
		switch {
		case !ok && (day-2)*daySeconds > until.unix(), ok && rate.anchor > until:
			return n
		case ok && last > after:
			after, last = max(after, rate.anchor-1), min(until, last)
			n += rate.count(after, last)
			after = max(after, rate.anchor+moment(rate.number(last))*rate.every) // the next window may begin then
		}
	}
}
