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
	turn := j.Tick != nil && j.Tick.Turn
	switch j.State {
	case Scheduled, Retrying:
		add(true, SetTimers)
		add(j.Wait == WaitTurn, Signal)
	case Pending:
		nowhere := j.Pin != nil && j.Pin.Node == ""
		add(limits || nowhere, SetTimers)
		add(!nowhere, Offer)
	case Running:
		add(j.Cancel != nil, Tell)
	case Waiting:
		add(true, SetTimers)
		add(true, Fork)
	case Succeeded, Failed, Cancelled, Skipped, Lost:
		unattended := j.Attempt == 0 || slices.Contains([]string{"deadline", "node_lost"}, errorCode(j))
		add(j.Parent == nil && (j.InputBlob != nil || j.ResultBlob != nil || j.Fan != nil), SetTimers)
		add(j.Fan == nil && (j.State == Cancelled || j.State == Lost || j.State == Failed && unattended), Withdraw)
		add(true, Announce)
		add(j.Fan != nil, Recall)
		add(j.Parent != nil, Count)
		add(turn || j.Tick != nil && j.Tick.Watched, Signal)
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
	if j.Wait == WaitTurn {
		// the owner says when
	} else if j.State.Delayed() && j.Fan != nil {
		list = append(list, Timer{Outset, j.Due})
	} else if j.State.Delayed() {
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

func errorCode(j Job) string {
	if j.Error == nil {
		return ""
	}
	return j.Error.Code
}
