//go:build !linux

package cluster

import "syscall"

// dieWithParent does nothing: here a test process that is killed leaves its
// processes behind.
func dieWithParent(*syscall.SysProcAttr) {}
