package tick

import "time"

// Advance returns what follows from a cursor. See the package comment for what it
// takes for granted, and for what is to be done with it.
func (d *Definition) Advance(c Cursor, f Facts) Step {
	return Step{Cursor: c}
}

var _ = time.Time{}
