//go:build unix && !linux

package program

import "syscall"

// groupAlive reports whether anybody is left in a group.
func groupAlive(pid int) bool { return syscall.Kill(-pid, 0) == nil }
