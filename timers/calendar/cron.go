package calendar

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// The parser of the library reads what all crons have in common. This file turns an
// expression into what it reads; what it lacks is in special.go.

// aliases are expressions that have a name.
var aliases = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * sun",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@hourly":   "0 * * * *",
}

// field is one of an expression.
type field struct {
	name   string
	option cron.ParseOption
	bits   func(*cron.SpecSchedule) uint64
	write  string // what may be written in it
	// special takes out what the library does not know, if it lacks anything here.
	special func(*days, string) (rest string, err error)
}

var layout = []field{
	{"second", cron.Second, func(s *cron.SpecSchedule) uint64 { return s.Second }, "0-59", nil},
	{"minute", cron.Minute, func(s *cron.SpecSchedule) uint64 { return s.Minute }, "0-59", nil},
	{"hour", cron.Hour, func(s *cron.SpecSchedule) uint64 { return s.Hour }, "0-23", nil},
	{"day of month", cron.Dom, func(s *cron.SpecSchedule) uint64 { return s.Dom }, "1-31, L, L-3, LW or 15W", (*days).specialOfMonth},
	{"month", cron.Month, func(s *cron.SpecSchedule) uint64 { return s.Month }, "1-12 or jan-dec", nil},
	{"day of week", cron.Dow, func(s *cron.SpecSchedule) uint64 { return s.Dow }, "0-7, sun-sat, 5L or mon#2", (*days).specialOfWeek},
}

// starBit is how the library marks a field that is a star.
const starBit = 1 << 63

// parseCron reads an expression. Errors say what to write instead.
func parseCron(text string) (fields, error) {
	parts, err := split(text)
	if err != nil {
		return fields{}, err
	}
	var f fields
	var sets [6]uint64
	for i, part := range parts {
		if layout[i].special != nil {
			part, err = layout[i].special(&f.days, part)
		}
		if err == nil && part != "" {
			sets[i], err = layout[i].parse(part)
		}
		if err != nil {
			return fields{}, fmt.Errorf("%s %q: write %s, ranges, lists such as 1,2 and steps such as */5",
				layout[i].name, parts[i], layout[i].write)
		}
	}
	const plain = starBit - 1
	f.seconds, f.minutes, f.hours = sets[0]&plain, sets[1]&plain, sets[2]&plain
	f.hourly = sets[2]&starBit != 0
	f.days.ofMonth, f.days.months, f.days.ofWeek = uint32(sets[3]), uint16(sets[4]), uint8(sets[5])
	f.days.both = isStar(parts[3]) || isStar(parts[5])
	if !f.comes() {
		return fields{}, fmt.Errorf("%q has no date in 400 years, after which the calendar repeats itself", text)
	}
	return f, nil
}

// isStar reports whether a field of days begins with a star, as crontab asks it.
func isStar(part string) bool { return part[0] == '*' || part[0] == '?' }

// split returns the six fields of an expression.
func split(text string) ([]string, error) {
	text = strings.TrimSpace(text)
	name := strings.ToLower(text)
	switch {
	case strings.HasPrefix(name, "tz="), strings.HasPrefix(name, "cron_tz="):
		return nil, fmt.Errorf("%q names a time zone; write it as zone", text)
	case strings.HasPrefix(name, "@every"):
		return nil, fmt.Errorf("%q is a fixed rate; write it as every", text)
	case strings.HasPrefix(name, "@"):
		alias, ok := aliases[name]
		if !ok {
			return nil, fmt.Errorf("%q is no alias; write @hourly, @daily, @weekly, @monthly, @yearly or the fields", text)
		}
		text = alias
	}
	parts := strings.Fields(text)
	switch len(parts) {
	case 5:
		return append([]string{"0"}, parts...), nil
	case 6:
		return parts, nil
	}
	return nil, fmt.Errorf("%q has %d fields; write minute, hour, day of month, month and day of week, "+
		"with the second before them if it matters", text, len(parts))
}

// parse reads one field. The library is lenient with what follows a star, and with
// lists that have nothing in them.
func (f field) parse(text string) (uint64, error) {
	for item := range strings.SplitSeq(text, ",") {
		value, _, _ := strings.Cut(item, "/")
		if value == "" || len(value) > 1 && isStar(value) || strings.Contains(item, "+") {
			return 0, fmt.Errorf("%q says nothing", item)
		}
	}
	read, err := cron.NewParser(f.option).Parse(text)
	if err != nil {
		return 0, err
	}
	set := f.bits(read.(*cron.SpecSchedule))
	if set&(starBit-1) == 0 {
		return 0, fmt.Errorf("%q says nothing", text)
	}
	return set, nil
}

// comes reports whether there is any date. The calendar repeats itself after 400
// years, to the day of the week.
func (f *fields) comes() bool {
	m := newMonth(2000, time.January)
	for range 400 * 12 {
		if f.days.in(m) != 0 {
			return true
		}
		m = m.next()
	}
	return false
}
