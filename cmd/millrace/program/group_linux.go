package program

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// groupAlive reports whether anybody is left in a group. A process that has
// ended counts as long as its parent has not asked for its status, which process
// 1 of a container may never do: so their states are looked at.
func groupAlive(pid int) bool {
	if syscall.Kill(-pid, 0) != nil {
		return false
	}
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a good one
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err == nil && living(stat, pid) {
			return true
		}
	}
	return len(files) == 0 // nobody knows: believe the signal
}

// living reports whether the process of a stat file is in a group and has not
// ended. The file has "ID (NAME) STATE PARENT GROUP …", and a name may hold
// anything.
func living(stat []byte, group int) bool {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(fields) > 2 && string(fields[2]) == strconv.Itoa(group) &&
		string(fields[0]) != "Z" && string(fields[0]) != "X"
}
