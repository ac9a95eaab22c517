package machine

import "slices"

// owed is what a job owes, told state by state.
func owed(j Job) []Debt {
	limits := !j.StartBy.IsZero() || !j.Deadline.IsZero()
	var list []Debt
	add := func(need bool, d Debt) {
		if need {
			list = append(list, d)
		}
	}
	switch j.State {
	case Scheduled, Retrying:
		add(true, SetTimers)
	case Pending:
		add(limits, SetTimers)
		add(true, Offer)
	case Running:
		add(j.Cancel != nil, Tell)
	case Succeeded, Failed, Cancelled:
		add(j.InputBlob != nil || j.ResultBlob != nil, SetTimers)
		add(j.State == Cancelled || j.State == Failed && (j.Attempt == 0 || slices.Contains([]string{"deadline", "node_lost"}, j.Error.Code)), Withdraw)
		add(true, Announce)
		add(j.Unique != nil && j.Unique.Scope != WithinPeriod, Free)
		add(limits || !j.Due.IsZero(), ClearTimers)
	case Removing:
		add(true, Erase)
	}
	return list
}

// timersOf is the timers of a job that has not ended.
func timersOf(j Job) []Timer {
	var list []Timer
	if j.State.Delayed() {
		list = append(list, Timer{Due, j.Due})
	}
	if !j.StartBy.IsZero() && j.Attempt == 0 {
		list = append(list, Timer{QueuedTimeout, j.StartBy})
	}
	if !j.Deadline.IsZero() {
		list = append(list, Timer{Deadline, j.Deadline})
	}
	return list
}
