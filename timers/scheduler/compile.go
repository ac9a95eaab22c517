package scheduler

import (
	"fmt"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/tick"
)

// Compile returns a stored definition as the engine works with it: with the name of
// its key, and with the times that it leaves to the server. Its error says why it
// cannot be used.
func Compile(entry kv.Entry[Stored]) (*tick.Definition, error) {
	s := entry.Value
	switch {
	case s.Problem != nil:
		return nil, s.Problem
	case s.Key() != entry.Key:
		return nil, fmt.Errorf("its name is %q, another one than its key %s has", s.Name, entry.Key)
	}
	if s.Created.IsZero() {
		s.Created = entry.Stored
	}
	if s.Since.IsZero() {
		s.Since = entry.Stored
	}
	return tick.Compile(s.Schedule, tick.Place{Revision: entry.Revision, Created: s.Created, Since: s.Since, Stored: entry.Stored})
}
