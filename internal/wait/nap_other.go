//go:build !linux

package wait

import "time"

// early is how long before its time an alarm begins to nap: it does not.
const early = 0

func nap(time.Duration) {}
