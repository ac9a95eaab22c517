package embedded

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lock takes the lock on f, which belongs to this very file handle: a second one
// in the same process has to wait as well. The system frees it with the handle.
func lock(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrInUse
	}
	return err
}

// unlock frees the lock and closes f.
func unlock(f *os.File) { f.Close() }
