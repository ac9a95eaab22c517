//go:build unix

package cluster

import (
	"errors"
	"syscall"
)

// The signals that stop a process, and let it go on.
const (
	freeze = syscall.SIGSTOP
	thaw   = syscall.SIGCONT
)

// setGroup gives a process a group of its own, in which is what it starts.
func setGroup(attr *syscall.SysProcAttr) { attr.Setpgid = true }

// signalGroup sends a signal to the group of a process, and reports whether
// somebody is in it.
func signalGroup(pid int, s syscall.Signal) bool { return syscall.Kill(-pid, s) == nil }

// exists reports whether there is a process with that ID.
func exists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
