package wait

import "time"

// Alarm is a timer that rings within some 0.1 ms of its time where the system can do
// that. A timer of Go is late by half a millisecond on an idle machine, and by a
// whole one at most, since the poller that it relies on sleeps for whole milliseconds
// (runtime.netpoll on Linux, epoll_wait(2)).
//
// C is written to shortly before it is time; whoever has received must call [Alarm.Nap],
// and then look at the clock again. The zero value is not ready for use: see [NewAlarm].
type Alarm struct {
	C <-chan time.Time

	timer *time.Timer
	at    time.Time
	still bool // time stands still while a thread sleeps: it is the virtual one of package synctest
}

// NewAlarm returns an alarm that is not set. The caller must call [Alarm.Stop].
func NewAlarm() *Alarm {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &Alarm{C: timer.C, timer: timer}
}

// Set has it ring after d, and no more at the time before.
func (a *Alarm) Set(d time.Duration) {
	a.at = time.Now().Add(d)
	if !a.still {
		d = max(0, d-early)
	}
	a.timer.Reset(d)
}

// Nap sleeps for what is left of the time, which is 1.5 ms at most. It takes a thread
// of the system for that.
func (a *Alarm) Nap() {
	for !a.still {
		now := time.Now()
		left := a.at.Sub(now)
		if left <= 0 || left > early {
			return
		}
		nap(left)
		a.still = time.Now().Equal(now)
	}
}

// Stop has it ring no more.
func (a *Alarm) Stop() { a.timer.Stop() }
