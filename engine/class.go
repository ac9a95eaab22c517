package engine

import (
	"cmp"
	"fmt"

	"github.com/millrace/millrace/engine/machine"
)

// Class is a class of priority: [High], [Normal] or [Low], or "" for the default.
// Of the jobs for which a worker has a slot, those of a higher class start first;
// while all classes wait, 16 of 21 slots go to high, 4 to normal and 1 to low. A
// queue with a limit (concurrency) runs its jobs in order, whatever their class.
type Class = machine.Class

// The classes of priority.
const (
	High   = machine.High
	Normal = Class("normal")
	Low    = machine.Low
)

// checkClass refuses a class that does not exist.
func checkClass(c Class) error {
	switch c {
	case "", High, Normal, Low:
		return nil
	}
	return fmt.Errorf("class is %q: use high, normal or low", c)
}

// stored returns a class as records have it.
func stored(c Class) Class {
	if c == Normal {
		return ""
	}
	return c
}

// shown returns the class of a record as users see it.
func shown(c Class) string { return string(cmp.Or(c, Normal)) }
