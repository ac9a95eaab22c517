package oracle

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// times returns when a plan ticks, after from and not after to, in order. It tries
// whatever could be a time of it.
func times(p *ledger.Plan, from, to int64) []int64 {
	step, matches := int64(p.Every), func(int64) bool { return true }
	if p.Cron != "" {
		c := parse(p)
		step, matches = int64(c.step), c.matches
	}
	var ticks []int64
	for at := (from/step + 1) * step; at <= to; at += step {
		if matches(at) {
			ticks = append(ticks, at)
		}
	}
	return ticks
}

// count returns how many times a plan has after from and not after to.
func count(p *ledger.Plan, from, to int64) int64 {
	if p.Every > 0 {
		return max(0, to/int64(p.Every)-from/int64(p.Every))
	}
	return int64(len(times(p, from, to)))
}

// known reports whether the times of a plan can be told.
func known(p *ledger.Plan) bool { return p.Every > 0 || p.Cron != "" }

// sameTimes reports whether two plans have the same times.
func sameTimes(a, b *ledger.Plan) bool {
	return a.Every == b.Every && a.Cron == b.Cron && a.Zone == b.Zone
}

// cron is an expression, as the times of the clock that it names: seconds, minutes,
// hours, days, months, days of the week. One that it does not restrict is nil.
type cron struct {
	fields [6][]int
	zone   *time.Location
	step   time.Duration // between times that could match
}

// parse reads the expression of a plan. It knows numbers, lists, ranges and steps;
// whoever writes a plan sees to it that there is nothing else. Nor does it know what
// becomes of times of the day that a change of the clocks skips or repeats.
func parse(p *ledger.Plan) cron {
	c := cron{step: time.Second}
	words := strings.Fields(p.Cron)
	if len(words) == 5 {
		words, c.step = append([]string{"0"}, words...), time.Minute
	}
	for i, word := range words {
		c.fields[i] = numbers(word, []int{59, 59, 23, 31, 12, 7}[i])
	}
	c.zone, _ = time.LoadLocation(p.Zone) // no zone is UTC
	return c
}

// numbers returns what a field of an expression allows, nil for everything.
func numbers(field string, most int) (allowed []int) {
	if field == "*" {
		return nil
	}
	number := func(text string) int {
		n, _ := strconv.Atoi(text) // see parse
		return n
	}
	for part := range strings.SplitSeq(field, ",") {
		values, step, stepped := strings.Cut(part, "/")
		from, to, ranged := strings.Cut(values, "-")
		first, last := number(from), number(to)
		switch {
		case values == "*":
			first, last = 0, most
		case !ranged && stepped:
			last = most
		case !ranged:
			last = first
		}
		for n := first; n <= last; n += max(1, number(step)) {
			allowed = append(allowed, n)
		}
	}
	return allowed
}

// matches reports whether the clock shows a time of the expression.
func (c cron) matches(at int64) bool {
	t := time.Unix(0, at).In(c.zone)
	shown := [6]int{t.Second(), t.Minute(), t.Hour(), t.Day(), int(t.Month()), int(t.Weekday())}
	has := func(i int) bool {
		return c.fields[i] == nil || slices.Contains(c.fields[i], shown[i]) || i == 5 && shown[i] == 0 && slices.Contains(c.fields[i], 7)
	}
	days := has(3) && has(5)
	if c.fields[3] != nil && c.fields[5] != nil {
		days = has(3) || has(5)
	}
	return has(0) && has(1) && has(2) && has(4) && days
}
