package calendar

import "math/bits"

// fields are the wall clock times that a cron expression stands for: bit n of each
// set is the value n. None of the first three is empty.
type fields struct {
	seconds, minutes, hours uint64
	days                    days
	hourly                  bool // every hour that passes, and no time of the day
}

// from returns the first of the times that is not before a wall clock time, or
// false if none comes before the year 10000.
func (f *fields) from(wall int64) (int64, bool) {
	m, day, clock := monthOf(wall)
	for ; m.year < 10000; m = m.next() {
		for left := f.days.in(m) >> day << day; left != 0; left &= left - 1 {
			first := int64(bits.TrailingZeros32(left))
			if first > day {
				clock = 0
			}
			if found, ok := f.timeFrom(clock); ok {
				return (m.first+first-1)*daySeconds + found, true
			}
		}
		day, clock = 1, 0
	}
	return 0, false
}

// timeFrom returns the first time of the day that is not before another, or false.
func (f *fields) timeFrom(clock int64) (int64, bool) {
	hour, minute, second := clock/3600, clock/60%60, clock%60
	if found := bitFrom(f.hours, hour); found != hour {
		hour, minute, second = found, 0, 0
	}
	if found := bitFrom(f.minutes, minute); found != minute {
		minute, second = found, 0
	}
	if second = bitFrom(f.seconds, second); second == 64 {
		minute, second = bitFrom(f.minutes, minute+1), bitFrom(f.seconds, 0)
	}
	if minute == 64 {
		hour, minute, second = bitFrom(f.hours, hour+1), bitFrom(f.minutes, 0), bitFrom(f.seconds, 0)
	}
	return hour*3600 + minute*60 + second, hour < 24
}

// bitFrom returns the first bit of a set that is not before another, or 64.
func bitFrom(set uint64, bit int64) int64 { return int64(bits.TrailingZeros64(set >> bit << bit)) }

// count returns how many of the times are not before one wall clock time, and
// before another that is not earlier. It looks at each month once.
func (f *fields) count(from, to int64) (n int64) {
	if to <= from {
		return 0
	}
	m, day, clock := monthOf(from)
	last, lastDay, lastTime := monthOf(to)
	for n = -f.before(m, day, clock); m.first < last.first; m = m.next() {
		n += f.before(m, 32, 0)
	}
	return n + f.before(last, lastDay, lastTime)
}

// before returns how many of the times are in a month before a day and a time of it.
func (f *fields) before(m month, day, clock int64) int64 {
	all := uint64(f.days.in(m))
	n := int64(bits.OnesCount64(all&(1<<day-1))) * f.timesBefore(daySeconds)
	if all>>day&1 != 0 {
		n += f.timesBefore(clock)
	}
	return n
}

// timesBefore returns how many times of the day are before another.
func (f *fields) timesBefore(clock int64) int64 {
	count := func(set uint64, below int64) int64 { return int64(bits.OnesCount64(set & (1<<below - 1))) }
	hour, minute, second := clock/3600, clock/60%60, clock%60
	n := count(f.hours, hour) * count(f.minutes, 60) * count(f.seconds, 60)
	if f.hours>>hour&1 == 0 {
		return n
	}
	n += count(f.minutes, minute) * count(f.seconds, 60)
	if f.minutes>>minute&1 == 0 {
		return n
	}
	return n + count(f.seconds, second)
}
