package spec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/timers/calendar"
)

// The fields of which a schedule has exactly one, and what a problem with the
// choice is filed under.
var (
	whenNames   = []string{"cron", "every", "after", "at"}
	targetNames = []string{"job", "broadcast", "workflow"}
)

const (
	whenField   = "(when)"
	targetField = "(target)"
)

// calendarNames are the fields that say when a schedule ticks.
var calendarNames = append([]string{"window", "zone", "start", "end", "exclude"}, whenNames...)

// How much there may be in a schedule. Owners keep all of them in memory, and the
// cursor of each is written at every tick.
const (
	maxMisfires = 10_000
	maxTurns    = 100      // jobs that go on, or wait
	maxTimes    = 1_000    // in a list
	maxShards   = 1_024    // of a job
	maxInput    = 32 << 10 // bytes
	maxSelector = 4_096    // bytes
	maxNote     = 1_000    // bytes
	maxJitter   = Duration(day)
)

// checks collects what is wrong with a definition.
type checks struct {
	fields []entry
	faults []fault
}

func (c *checks) add(field, format string, args ...any) {
	c.faults = append(c.faults, fault{field: field, message: fmt.Sprintf(format, args...)})
}

func (c *checks) err(field string, err error) {
	if err != nil {
		c.add(field, "%s", err.Error())
	}
}

// has reports whether something is wrong with a field.
func (c *checks) has(field string) bool {
	return slices.ContainsFunc(c.faults, func(f fault) bool { return f.field == field })
}

// given returns those of some fields that are set.
func (c *checks) given(names []string) (given []string) {
	for _, e := range c.fields {
		if slices.Contains(names, e.name) && e.text() != "" {
			given = append(given, e.name)
		}
	}
	return given
}

// compile returns the input of the schedule's jobs, or everything that is wrong with
// the schedule.
func (s *Schedule) compile() (*Template, []fault) {
	c := &checks{fields: s.fields()}
	if s.Name == "" {
		c.add("name", "name is missing: give the schedule one")
	} else {
		c.err("name", name.Check("name", s.Name))
	}
	s.checkDurations(c)
	s.checkWhen(c)
	s.checkTarget(c)
	s.checkParts(c)
	s.checkNumbers(c)
	c.faults = append(c.faults, s.Misfire.faults()...)
	c.faults = append(c.faults, s.Overlap.faults()...)
	if len(s.Note) > maxNote {
		c.add("note", "note has %d bytes: use up to %d", len(s.Note), maxNote)
	}
	t, faults := s.template()
	return t, append(c.faults, faults...)
}

// checkWhen checks when the schedule ticks.
func (s *Schedule) checkWhen(c *checks) {
	switch given := c.given(whenNames); {
	case len(given) == 0:
		c.add(whenField, "it does not say when: give cron, every, after or at")
	case len(given) > 1:
		c.add(given[1], "%s and %s exclude each other: leave one out", given[0], given[1])
	}
	s.checkWindow(c)
	s.checkTimes(c)
	if !s.Start.IsZero() && !s.End.IsZero() && !s.Start.Before(s.End) {
		c.add("end", "end is %s, which is not after the start", timeText(s.End))
	}
	for _, list := range []struct {
		field string
		n     int
	}{{"at", len(s.At)}, {"exclude", len(s.Exclude)}} {
		if list.n > maxTimes {
			c.add(list.field, "%s has %d entries: use up to %d, and several schedules for more", list.field, list.n, maxTimes)
		}
	}
	s.checkRule(c)
}

// checkTimes refuses times that records and IDs do not have.
func (s *Schedule) checkTimes(c *checks) {
	check := func(field string, t time.Time) {
		if year := t.UTC().Year(); year < 1970 || year > 9999 {
			c.add(field, "%s is in the year %d: use a time from 1970 to 9999", field, year)
		}
	}
	for i, t := range s.At {
		check(itemPath("at", i), t)
	}
	if !s.Start.IsZero() {
		check("start", s.Start)
	}
	if !s.End.IsZero() {
		check("end", s.End)
	}
}

func (s *Schedule) checkWindow(c *checks) {
	switch w := s.Window; {
	case w == nil:
	case s.Every == 0:
		c.add("window", "window is for every: leave it out")
	case w.From == "":
		c.add("window", "window.from is missing: give the time of the day at which it begins, such as 09:00")
	case w.To == "":
		c.add("window", "window.to is missing: give the time of the day at which it ends, such as 17:00")
	}
}

// checkRule asks the calendar, which reports one problem, and in that case also about
// each part of the rule alone.
func (s *Schedule) checkRule(c *checks) {
	r := s.Rule()
	if _, err := calendar.Compile(r); err == nil {
		return
	}
	if c.has("window") {
		r.Window = nil
	}
	for _, part := range []calendar.Rule{
		{Zone: r.Zone}, {Cron: r.Cron}, {Every: r.Every, Window: r.Window}, {At: r.At}, {Exclude: r.Exclude}, r,
	} {
		_, err := calendar.Compile(part)
		if wrong, ok := errors.AsType[*calendar.FieldError](err); ok && !c.has(wrong.Field) {
			c.add(wrong.Field, "%s", oneLine(wrong.Error()))
		}
	}
}

// checkTarget checks what the schedule makes.
func (s *Schedule) checkTarget(c *checks) {
	switch given := c.given(targetNames); {
	case s.Workflow != "":
		c.add("workflow", "workflow: there are no workflows yet: give a job or a broadcast")
	case len(given) == 0:
		c.add(targetField, "it does not say what: give a job or a broadcast")
	case len(given) > 1:
		c.add(given[1], "%s and %s exclude each other: leave one out", given[0], given[1])
	}
	for _, field := range []struct{ name, kind string }{{"job", s.Job}, {"broadcast", s.Broadcast}} {
		if field.kind != "" {
			c.err(field.name, name.CheckKind(field.kind))
		}
	}
	if s.Queue != "" {
		c.err("queue", name.Check("queue", s.Queue))
	}
	if s.Class != "" && !slices.Contains([]string{"high", "normal", "low"}, s.Class) {
		c.add("class", "class is %s: use high, normal or low", quote(s.Class))
	}
}

// checkParts checks what broadcasts and sharded jobs have, and what they have not.
func (s *Schedule) checkParts(c *checks) {
	parts := s.Broadcast != "" || s.Shards != 0
	if s.Broadcast == "" {
		for _, field := range c.given([]string{"on_lost", "done", "max_parallel"}) {
			c.add(field, "%s is for a broadcast: leave it out", field)
		}
	} else if s.Shards != 0 {
		c.add("shards", "shards are for a job: leave them out, or make the broadcast a job")
	}
	if parts {
		for _, field := range c.given([]string{"class", "queue_timeout"}) {
			c.add(field, "%s is for jobs that wait for a worker, and neither a broadcast nor a sharded job does: leave it out", field)
		}
	} else if s.Selector != nil {
		c.add("selector", "selector is for a broadcast or a sharded job: leave it out")
	}
	size := 0
	for key, value := range s.Selector {
		if key == "" {
			c.add("selector", "selector has a label without a name: write it like role: web")
		}
		size += len(key) + len(value)
	}
	if size > maxSelector {
		c.add("selector", "selector has %d bytes: use up to %d", size, maxSelector)
	}
	switch {
	case c.has("on_lost"):
	case s.OnLost != "" && s.OnLost != LostFails && s.OnLost != LostWaits:
		c.add("on_lost", "on_lost is %s: use fail or wait", quote(s.OnLost))
	case s.OnLost == LostWaits && s.Deadline == 0:
		c.add("on_lost", "on_lost is wait, and there is no deadline: add one, or use fail")
	}
	if n, err := strconv.Atoi(s.Done); s.Done != "" && !slices.Contains([]string{"all", "quorum", "any"}, s.Done) &&
		(err != nil || n < 1 || strconv.Itoa(n) != s.Done) {
		c.add("done", "done is %s: %s", quote(s.Done), goalAdvice)
	}
}

// checkDurations checks the fields that are durations.
func (s *Schedule) checkDurations(c *checks) {
	least := map[string]Duration{"every": Duration(calendar.Shortest), "after": Duration(calendar.Shortest)}
	most := map[string]Duration{"jitter": maxJitter}
	fields := append(c.fields, entry{"misfire.all.window", &s.Misfire.Window})
	for _, e := range fields {
		into, ok := e.into.(*Duration)
		if !ok || *into == 0 {
			continue
		}
		least, most := max(least[e.name], Duration(time.Millisecond)), most[e.name]
		if most == 0 {
			most = longest
		}
		switch d := *into; {
		case d < least:
			c.add(e.name, "%s is %v: use %v or more", e.name, d, least)
		case d > most:
			c.add(e.name, "%s is %v: use %v or less", e.name, d, most)
		case time.Duration(d)%time.Millisecond != 0:
			c.add(e.name, "%s is %v: use whole milliseconds", e.name, d)
		}
	}
	if s.Every != 0 && s.Jitter > s.Every && !c.has("jitter") && !c.has("every") {
		c.add("jitter", "jitter is %v, and there is a tick every %v: use %v or less", s.Jitter, s.Every, s.Every)
	}
}

// checkNumbers checks the fields that are numbers, which files cannot have wrong.
func (s *Schedule) checkNumbers(c *checks) {
	for _, e := range c.fields {
		var n int64
		switch v := e.into.(type) {
		case *int:
			n = int64(*v)
		case *int64:
			n = *v
		}
		if n < 0 {
			c.add(e.name, "%s is %d: use 1 or more, or 0 for the default", e.name, n)
		}
	}
	if s.Shards > maxShards {
		c.add("shards", "shards is %d: use up to %d", s.Shards, maxShards)
	}
}
