// Package zone finds time zones by their names, and reads each of them once: a
// hundred thousand schedules in Europe/Berlin share one.
package zone

import (
	"fmt"
	"sync"
	"time"
)

var loaded sync.Map // from names to *time.Location

// Load returns the time zone of a name such as Europe/Berlin. Empty means UTC. The
// zone of the machine has no name here: whatever follows from a zone must be the
// same on all machines.
func Load(name string) (*time.Location, error) {
	if known, ok := loaded.Load(name); ok {
		return known.(*time.Location), nil
	}
	if name == "Local" {
		return nil, fmt.Errorf("%q differs between machines; write a name such as Europe/Berlin", name)
	}
	read, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf(`%q is not in the time zone data of this machine; write a name such as Europe/Berlin, `+
			`and where machines have no such data let the program import _ "time/tzdata"`, name)
	}
	known, _ := loaded.LoadOrStore(name, read)
	return known.(*time.Location), nil
}
