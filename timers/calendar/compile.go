package calendar

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/zone"
)

// Compile checks a rule. Every error is a [*FieldError].
func Compile(r Rule) (*Calendar, error) {
	c := &Calendar{start: earliest, end: latest}
	var err error
	if c.zone, err = zone.Load(r.Zone); err != nil {
		return nil, &FieldError{Field: "zone", Message: err.Error()}
	}
	if err := c.bound(r); err != nil {
		return nil, err
	}
	if c.ticks, err = c.compile(r); err != nil {
		return nil, err
	}
	return c, nil
}

// bound sets what applies to all kinds of rules.
func (c *Calendar) bound(r Rule) error {
	if !r.Start.IsZero() {
		c.start = max(notBefore(r.Start), earliest)
	}
	if !r.End.IsZero() {
		c.end = min(notBefore(r.End), latest)
	}
	if c.start >= c.end {
		return wrong("end", "it is not after the start; no tick would come")
	}
	for i, text := range r.Exclude {
		date, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return wrong(fmt.Sprintf("exclude[%d]", i), "%q is no date; write it as 2027-12-24", text)
		}
		c.excluded = append(c.excluded, date.Unix()/daySeconds)
	}
	slices.Sort(c.excluded)
	c.excluded = slices.Compact(c.excluded)
	return nil
}

// compile makes the ticks of a rule, none for a fixed delay.
func (c *Calendar) compile(r Rule) (ticks, error) {
	switch {
	case r.Cron != "" && r.Every != 0, r.Cron != "" && r.At != nil, r.Every != 0 && r.At != nil:
		field := "every"
		if r.At != nil {
			field = "at"
		}
		return nil, wrong(field, "a schedule has one of cron, every, after and at; remove the others")
	case r.Window != nil && r.Every == 0:
		return nil, wrong("window", "it bounds every; write how often the schedule ticks in it")
	case r.Cron != "":
		return c.compileCron(r.Cron)
	case r.Every != 0:
		return c.compileEvery(r)
	case r.At != nil:
		return compileAt(r.At)
	}
	return nil, nil
}

func (c *Calendar) compileCron(text string) (ticks, error) {
	f, err := parseCron(text)
	if err != nil {
		return nil, &FieldError{Field: "cron", Message: err.Error()}
	}
	return &expression{fields: f, zone: c.zone}, nil
}

func (c *Calendar) compileEvery(r Rule) (ticks, error) {
	switch {
	case r.Every < Shortest:
		return nil, wrong("every", "%v is too short; write %v or more", r.Every, Shortest)
	case r.Every%time.Millisecond != 0:
		return nil, wrong("every", "%v is not in whole milliseconds; round it", r.Every)
	}
	every := moment(r.Every.Milliseconds())
	if r.Window != nil {
		return c.compileWindow(every, *r.Window)
	}
	anchor := moment(0)
	if !r.Start.IsZero() {
		anchor = c.start
	}
	return rate{every: every, anchor: anchor}, nil
}

func (c *Calendar) compileWindow(every moment, w Window) (ticks, error) {
	from, ok := timeOfDay(w.From)
	if !ok {
		return nil, wrong("window.from", "%q is no time of the day; write it as 09:00", w.From)
	}
	to, ok := timeOfDay(w.To)
	if w.To == "24:00" || w.To == "24:00:00" {
		to, ok = daySeconds, true
	}
	switch {
	case !ok:
		return nil, wrong("window.to", "%q is no time of the day; write it as 17:00", w.To)
	case to == from:
		return nil, wrong("window.to", "the window ends when it begins; for whole days write from 00:00 to 24:00")
	case to < from:
		to += daySeconds
	}
	window := &window{every: every, from: from, to: to, weekdays: 127, zone: c.zone}
	if w.Days != "" {
		var err error
		if window.weekdays, err = parseWeekdays(w.Days); err != nil {
			return nil, wrong("window.days", "%q are no days of the week; write them as mon-fri,sun", w.Days)
		}
	}
	return window, nil
}

// timeOfDay returns the second of the day that a text such as 09:00 or 09:00:30
// says.
func timeOfDay(text string) (int64, bool) {
	layout := "15:04"
	if len(text) > len(layout) {
		layout = time.TimeOnly
	}
	t, err := time.Parse(layout, text)
	if err != nil || t.Nanosecond() != 0 {
		return 0, false
	}
	return int64(t.Hour()*3600 + t.Minute()*60 + t.Second()), true
}

func compileAt(times []time.Time) (ticks, error) {
	if len(times) == 0 {
		return nil, wrong("at", "it names no time; write at least one")
	}
	l := make(list, len(times))
	for i, t := range times {
		l[i] = notBefore(t)
	}
	slices.SortFunc(l, cmp.Compare)
	return slices.Compact(l), nil
}

func wrong(field, format string, args ...any) error {
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
}
