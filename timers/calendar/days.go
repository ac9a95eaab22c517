package calendar

import (
	"math/bits"
	"time"
)

// days are dates that a cron expression stands for. It may say them in two ways, by
// the day of the month and by the day of the week: a date is meant if either fits,
// or both have to if one of them is a star.
type days struct {
	months uint16 // bit 1 is January

	ofMonth     uint32 // bit 1 is the first
	fromLast    uint32 // L: bit 0 is the last day of the month, bit 3 (L-3) three days before it
	near        uint32 // 15W: bit 15 is the working day nearest to the 15th
	lastWorking bool   // LW: the last working day of the month

	ofWeek     uint8    // bit 0 is Sunday
	lastOfWeek uint8    // 5L: bit 5 is the last Friday of the month
	nth        [7]uint8 // 1#2: bit 2 of 1 is the second Monday

	both bool // a date has to fit in both ways
}

// month is one of the calendar.
type month struct {
	year   int
	month  time.Month
	first  int64 // its first day, since the Unix epoch
	length int64
}

func newMonth(year int, m time.Month) month {
	start := func(m time.Month) int64 {
		return time.Date(year, m, 1, 0, 0, 0, 0, time.UTC).Unix() / daySeconds
	}
	first := start(m)
	return month{year: year, month: m, first: first, length: start(m+1) - first}
}

// monthOf returns the month of a wall clock time, the day in it and the second of
// the day.
func monthOf(wall int64) (m month, day, second int64) {
	year, name, dayOf := time.Unix(wall, 0).UTC().Date()
	return newMonth(year, name), int64(dayOf), wall - floorDiv(wall, daySeconds)*daySeconds
}

func (m month) next() month {
	if m.month == time.December {
		return newMonth(m.year+1, time.January)
	}
	return newMonth(m.year, m.month+1)
}

// weekday returns the day of the week of a day of the month; 0 is Sunday.
func (m month) weekday(day int64) int64 {
	const epoch = int64(time.Thursday)
	return ((m.first+day-1+epoch)%7 + 7) % 7
}

// in returns the days of a month that are meant; bit 1 is the first.
func (d *days) in(m month) uint32 {
	if d.months>>m.month&1 == 0 {
		return 0
	}
	byMonth, byWeek := d.byMonth(m), d.byWeek(m)
	if d.both {
		return byMonth & byWeek
	}
	return byMonth | byWeek
}

func (d *days) byMonth(m month) uint32 {
	whole := uint32(1<<(m.length+1) - 2)
	set := (d.ofMonth | bits.Reverse32(d.fromLast)>>(31-m.length)) & whole
	for left := d.near & whole; left != 0; left &= left - 1 {
		set |= 1 << m.working(int64(bits.TrailingZeros32(left)))
	}
	if d.lastWorking {
		set |= 1 << m.working(m.length)
	}
	return set
}

// working returns the working day nearest to a day, in the same month.
func (m month) working(day int64) int64 {
	switch time.Weekday(m.weekday(day)) {
	case time.Saturday:
		if day == 1 {
			return 3
		}
		return day - 1
	case time.Sunday:
		if day == m.length {
			return day - 2
		}
		return day + 1
	default:
		return day
	}
}

func (d *days) byWeek(m month) uint32 {
	whole, first := uint32(1<<(m.length+1)-2), m.weekday(1)
	week := (uint32(d.ofWeek)>>first | uint32(d.ofWeek)<<(7-first)) & 127
	set := (week | week<<7 | week<<14 | week<<21 | week<<28) << 1 & whole
	if d.lastOfWeek == 0 && d.nth == [7]uint8{} {
		return set
	}
	for day := int64(1); day <= m.length; day++ {
		weekday := m.weekday(day)
		if d.nth[weekday]>>((day+6)/7)&1 != 0 || day+7 > m.length && d.lastOfWeek>>weekday&1 != 0 {
			set |= 1 << day
		}
	}
	return set
}
