package show

import (
	"strconv"

	"github.com/jedib0t/go-pretty/v6/text"
)

// marks are the states of jobs as they look.
var marks = map[string]struct {
	sign   string
	colour text.Color
}{
	"scheduled": {"·", text.FgYellow},
	"pending":   {"·", text.FgYellow},
	"waiting":   {"·", text.FgYellow},
	"running":   {"▸", text.FgCyan},
	"retrying":  {"↻", text.FgYellow},
	"succeeded": {"✓", text.FgGreen},
	"failed":    {"✗", text.FgRed},
	"lost":      {"✗", text.FgRed},
	"cancelled": {"✗", text.FgMagenta},
	"skipped":   {"–", text.FgMagenta},
}

// State returns the state of a job with a sign, in a colour if that is wanted.
func State(state string, colour bool) string {
	mark := marks[state]
	s := mark.sign + " " + state
	if colour {
		return "\x1b[" + strconv.Itoa(int(mark.colour)) + "m" + s + "\x1b[0m"
	}
	return s
}
