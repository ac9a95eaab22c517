//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// shell runs a command line, which is the argument after these.
var shell = []string{"sh", "-c"}

// own does nothing: there are no process groups.
func own(*exec.Cmd) {}

// terminateGroup ends the process: there is no way to ask.
func terminateGroup(leader *os.Process) { _ = leader.Kill() }

// killGroup ends the process.
func killGroup(leader *os.Process) { _ = leader.Kill() }

// groupAlive reports that nobody is left: what the process started is not known.
func groupAlive(*os.Process) bool { return false }
