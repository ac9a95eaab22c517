package calendar

import "slices"

// list ticks at moments in order, each of which is there once.
type list []moment

func (l list) next(after moment) moment {
	if i := l.upTo(after); i < len(l) {
		return l[i]
	}
	return never
}

func (l list) count(after, until moment) int64 { return int64(l.upTo(until) - l.upTo(after)) }

// upTo returns how many are not after a moment.
func (l list) upTo(m moment) int {
	i, _ := slices.BinarySearch(l, m+1)
	return i
}
