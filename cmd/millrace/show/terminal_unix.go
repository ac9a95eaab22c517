//go:build unix

package show

import (
	"os"

	"golang.org/x/sys/unix"
)

// Size returns the size of a terminal in characters, or false for what
// is none.
func Size(f *os.File) (width, height int, ok bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 0, 0, false
	}
	return int(size.Col), int(size.Row), true
}
