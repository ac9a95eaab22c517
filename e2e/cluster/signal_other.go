//go:build !unix

package cluster

import "syscall"

// Numbers that stand for signals which this system does not have: sending them is
// an error.
const (
	freeze = syscall.Signal(19)
	thaw   = syscall.Signal(18)
)

// setGroup does nothing: there are no groups of processes.
func setGroup(*syscall.SysProcAttr) {}

// signalGroup finds nobody: there are no groups of processes.
func signalGroup(int, syscall.Signal) bool { return false }

// exists takes every process for one that lives: what it left behind stays.
func exists(int) bool { return true }
