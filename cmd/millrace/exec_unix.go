//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// shell runs a command line, which is the argument after these.
var shell = []string{"sh", "-c"}

// own gives a command a process group of its own, named by its process ID.
func own(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// terminateGroup asks a group to end. A group that is gone does no harm.
func terminateGroup(leader *os.Process) { _ = syscall.Kill(-leader.Pid, syscall.SIGTERM) }

// killGroup ends a group. A group that is gone does no harm.
func killGroup(leader *os.Process) { _ = syscall.Kill(-leader.Pid, syscall.SIGKILL) }

// groupAlive reports whether anybody is left in a group.
func groupAlive(leader *os.Process) bool { return syscall.Kill(-leader.Pid, 0) == nil }
