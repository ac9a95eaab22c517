package schedules

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/timers/calendar"
)

// Tick is a time of a schedule that is to come.
type Tick struct {
	Schedule string `json:"schedule"`
	// At is the tick, by which its job is named, and NextAttempt is when that may
	// start: a jitter later.
	At          time.Time `json:"at"`
	NextAttempt time.Time `json:"next_attempt_at"`
	// Local is At by the clock of the schedule's zone, whose short name, such as
	// CET, is Zone.
	Local time.Time `json:"local"`
	Zone  string    `json:"zone"`
	// Shift says how the clock changes on that day, such as "clocks go forward
	// from 02:00 to 03:00", or is empty.
	Shift string `json:"shift,omitempty"`
}

// Preview is what is known of the ticks to come.
type Preview struct {
	Ticks []Tick `json:"ticks"`
	// Note is what to know of them, such as that the schedule is paused, or empty.
	Note string `json:"note,omitempty"`
}

// maxPreview bounds the ticks that are asked for at once.
const maxPreview = 10_000

// Next returns the next n ticks of a schedule as it is stored.
func (s *Schedules) Next(ctx context.Context, schedule string, n int) (Preview, error) {
	if err := check("look at", schedule); err != nil {
		return Preview{}, err
	}
	info, err := s.Get(ctx, schedule)
	if err != nil {
		return Preview{}, err
	}
	if info.Definition == nil {
		return Preview{}, failed("look at", schedule, fmt.Errorf("%w: %s", ErrUnusable, info.Problem))
	}
	if info.State == Active && info.Next == nil {
		note := fmt.Sprintf("the next tick is %v after the end of %s, which goes on", info.Definition.After, *info.LastJob)
		return Preview{Ticks: []Tick{}, Note: note}, nil
	}
	from := plan{doc: *info.Definition, after: s.clock.Now(), made: info.Made}
	if info.Next != nil { // one that is due is still to come until its job is there
		from.first = *info.Next
	}
	p, err := from.preview(n)
	if err != nil {
		return Preview{}, failed("look at", schedule, err)
	}
	if info.State == Paused || info.State == Halted {
		p.Note = fmt.Sprintf("the schedule is %s: these are its ticks if it is resumed now", info.State)
	}
	return p, nil
}

// Foresee returns the first n ticks that a schedule has after a moment, if it was
// applied before.
func Foresee(doc spec.Schedule, after time.Time, n int) (Preview, error) {
	if err := doc.Validate(); err != nil {
		return Preview{}, err
	}
	p, err := plan{doc: doc, after: after}.preview(n)
	if err != nil {
		return Preview{}, failed("look at", doc.Name, err)
	}
	return p, nil
}

// plan is a schedule of which the ticks are looked for.
type plan struct {
	doc   spec.Schedule
	after time.Time
	first time.Time // the tick to come, if it is known
	made  int64
}

func (p plan) preview(n int) (Preview, error) {
	if n < 1 || n > maxPreview {
		return Preview{}, fmt.Errorf("%d ticks are asked for: use 1 to %d", n, maxPreview)
	}
	c, err := calendar.Compile(p.doc.Rule())
	if err != nil {
		return Preview{}, err
	}
	if p.doc.MaxRuns > 0 {
		n = int(min(int64(n), max(p.doc.MaxRuns-p.made, 0)))
	}
	found, at := Preview{Ticks: []Tick{}}, p.first
	if at.IsZero() {
		at = p.begin(c)
	}
	for ; len(found.Ticks) < n && !at.IsZero(); at = c.Next(at) {
		found.Ticks = append(found.Ticks, p.tick(c, at))
	}
	if p.doc.After > 0 {
		found.Note = fmt.Sprintf("each tick is %v after the end of the last job, and known then", p.doc.After)
	}
	return found, nil
}

// begin returns the first tick. That of a fixed delay, which nothing else is known
// of, is that of a schedule which has just been applied.
func (p plan) begin(c *calendar.Calendar) time.Time {
	if p.doc.After > 0 {
		return c.Open(later(p.after, p.doc.Start).Add(time.Duration(p.doc.After)))
	}
	return c.Next(p.after)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func (p plan) tick(c *calendar.Calendar, at time.Time) Tick {
	local := at.In(c.Zone())
	zone, _ := local.Zone()
	return Tick{
		Schedule: p.doc.Name, At: at.UTC(), NextAttempt: at.UTC().Add(calendar.Jitter(p.doc.Name, at, time.Duration(p.doc.Jitter))),
		Local: local, Zone: zone, Shift: shift(local),
	}
}

// shift says how the clock of its zone changes on the day of a time, if it does.
func shift(local time.Time) string {
	from, until := local.ZoneBounds()
	for _, at := range []time.Time{from, until} {
		if at.IsZero() {
			continue
		}
		before := at.Add(-1).In(local.Location())
		_, was := before.Zone()
		_, is := at.In(local.Location()).Zone()
		old := at.UTC().Add(time.Duration(was) * time.Second) // what the old clock would show
		if !sameDay(local, old) || was == is {
			continue
		}
		way := "forward"
		if is < was {
			way = "back"
		}
		return fmt.Sprintf("clocks go %s from %s to %s", way, old.Format("15:04"), at.In(local.Location()).Format("15:04"))
	}
	return ""
}

func sameDay(a, b time.Time) bool {
	return a.Year() == b.Year() && a.YearDay() == b.YearDay()
}
