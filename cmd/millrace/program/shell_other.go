//go:build !unix

package program

import (
	"os"
	"os/exec"
)

// shell runs a command line, which is the argument after these.
var shell = []string{"sh", "-c"}

// own does nothing: there are no process groups.
func own(*exec.Cmd) {}

// terminateGroup ends the process: there is no way to ask.
func terminateGroup(pid int) { killGroup(pid) }

// killGroup ends the process. One that is gone does no harm.
func killGroup(pid int) {
	if process, err := os.FindProcess(pid); err == nil {
		_ = process.Kill()
		_ = process.Release()
	}
}

// groupAlive reports that nobody is left: what the process started is not known.
func groupAlive(int) bool { return false }
