// Package calendar tells when a schedule ticks.
//
// A [Rule] says it as people do: a cron expression, a fixed rate, a list of
// times, in a time zone, between two moments and not on certain dates. [Compile]
// checks it and makes a [Calendar], which is immutable and answers by arithmetic:
//
//	Next      the first tick after a moment               calendar.go
//	Count     how many there are between two moments      count.go
//	cron      expression ──▶ fields                        cron.go, special.go
//	          fields ──▶ wall clock times                  fields.go, days.go
//	          wall clock times ──▶ moments                 expression.go, wall.go
//	rate      every so often, also in a daily window       rate.go, window.go
//	Jitter    how much later than its tick a job is due    jitter.go
//
// Everything derives from the rule and the time zone data, so all processes that
// know both compute the same ticks.
//
// Start reading at [Rule], then at [Calendar.Next].
//
// # When clocks change
//
// A time of the day that is skipped in spring ticks at the first moment after the
// gap, together with all others that fall there, and with a tick that is due then
// anyway. A time that comes twice in autumn ticks at its first coming only. A cron
// expression whose hours are "*" means every hour that passes and no time of the
// day: it ticks whenever the clock shows such a minute, so 23 hours on the short
// day and 25 on the long one. Rates are durations and do not care.
//
// # What is not promised
//
// No tick is later than the year 9999, and leap seconds do not exist.
package calendar
