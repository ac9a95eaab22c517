//go:build bugs

package bug

import "os"

// The bugs, of which the process has the one that its environment names.
var (
	AckFirst  = os.Getenv("MILLRACE_BUG") == "ack-first"
	TakeOver  = os.Getenv("MILLRACE_BUG") == "take-over"
	Forget    = os.Getenv("MILLRACE_BUG") == "forget"
	SaveFirst = os.Getenv("MILLRACE_BUG") == "save-first"
)
