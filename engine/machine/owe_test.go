package machine

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
		add(j.State == Cancelled || j.State == Failed && (j.Attempt == 0 || j.Error.Code == "deadline"), Withdraw)
		add(true, Announce)
		add(len(j.Timers()) > 0, ClearTimers)
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
