package wait

import (
	"syscall"
	"time"
)

// early is how long before its time an alarm begins to nap.
const early = 1500 * time.Microsecond

// nap sleeps for d, or less if a signal comes.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&t, nil) // EINTR
}
