package calendar

import (
	"fmt"
	"strconv"
	"strings"
)

// The days that the library does not know: L, W, #, Sunday as 7, and days of the
// week from one to an earlier one.

// specialOfMonth takes what is special out of a field, and returns the rest, which
// may be empty.
func (d *days) specialOfMonth(text string) (rest string, err error) {
	var plain []string
	for item := range strings.SplitSeq(strings.ToUpper(text), ",") {
		before, isLast := strings.CutPrefix(item, "L-")
		near, isNear := strings.CutSuffix(item, "W")
		switch {
		case item == "L":
			d.fromLast |= 1
		case item == "LW":
			d.lastWorking = true
		case isLast:
			n, err := number(before, 1, 30)
			if err != nil {
				return "", err
			}
			d.fromLast |= 1 << n
		case isNear:
			n, err := number(near, 1, 31)
			if err != nil {
				return "", err
			}
			d.near |= 1 << n
		default:
			plain = append(plain, item)
		}
	}
	return strings.Join(plain, ","), nil
}

// specialOfWeek takes what is special out of a field, and returns the rest, which
// may be empty, as the library reads it.
func (d *days) specialOfWeek(text string) (rest string, err error) {
	var plain []string
	for item := range strings.SplitSeq(strings.ToUpper(text), ",") {
		last, isLast := strings.CutSuffix(item, "L")
		name, nth, isNth := strings.Cut(item, "#")
		switch {
		case isLast:
			day, err := weekday(last)
			if err != nil {
				return "", err
			}
			d.lastOfWeek |= 1 << (day % 7)
		case isNth:
			day, err := weekday(name)
			if err != nil {
				return "", err
			}
			n, err := number(nth, 1, 5)
			if err != nil {
				return "", err
			}
			d.nth[day%7] |= 1 << n
		default:
			item, err := week(item)
			if err != nil {
				return "", err
			}
			plain = append(plain, item)
		}
	}
	return strings.Join(plain, ","), nil
}

// week writes days of the week as the library reads them: it knows Sunday as 0
// only, and no range that goes on after Saturday.
func week(item string) (string, error) {
	days, by, stepped := strings.Cut(item, "/")
	if days == "" || isStar(days) {
		return item, nil
	}
	from, to, ranged := strings.Cut(days, "-")
	first, err := weekday(from)
	if err != nil {
		return "", err
	}
	last := first
	if ranged {
		last, err = weekday(to)
	} else if stepped { // from that day to the end of the week
		last = max(first, 6)
	}
	if err != nil {
		return "", err
	}
	step := 1
	if stepped {
		step, err = number(by, 1, 7)
	}
	if err != nil {
		return "", err
	}
	if last < first {
		last += 7
	}
	var list []string
	for day := first; day <= last; day += step {
		list = append(list, strconv.Itoa(day%7))
	}
	return strings.Join(list, ","), nil
}

// weekday reads a day of the week: 0 to 7, or a name.
func weekday(text string) (int, error) {
	const names = "SUNMONTUEWEDTHUFRISAT"
	if i := strings.Index(names, text); len(text) == 3 && i >= 0 && i%3 == 0 {
		return i / 3, nil
	}
	return number(text, 0, 7)
}

// number reads a number within bounds.
func number(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most || text[0] == '+' || text[0] == '-' {
		return 0, fmt.Errorf("%q is not a number from %d to %d", text, least, most)
	}
	return n, nil
}

// parseWeekdays reads days of the week such as mon-fri,sun.
func parseWeekdays(text string) (uint8, error) {
	var special days
	plain, err := special.specialOfWeek(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		return 0, err
	}
	if special.lastOfWeek != 0 || special.nth != [7]uint8{} {
		return 0, fmt.Errorf("%q depends on the month", text)
	}
	set, err := layout[5].parse(plain)
	return uint8(set), err
}
