package show

import (
	"strconv"

	"github.com/millrace/millrace/engine"
)

// Attempt returns the number of a job's last attempt, or nothing for none.
func Attempt(j engine.JobInfo) string {
	if j.Attempt == 0 {
		return ""
	}
	return strconv.Itoa(j.Attempt)
}

// Message returns what an error says, or nothing for none.
func Message(e *engine.ErrorInfo) string {
	if e == nil {
		return ""
	}
	return e.Message
}
