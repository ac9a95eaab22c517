//go:build unix

package program

import (
	"os/exec"
	"syscall"
)

// shell runs a command line, which is the argument after these.
var shell = []string{"sh", "-c"}

// own gives a command a process group of its own, named by its process ID.
func own(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// terminateGroup asks a group to end. A group that is gone does no harm.
func terminateGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGTERM) }

// killGroup ends a group. A group that is gone does no harm.
func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
