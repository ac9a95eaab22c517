package cluster

import "syscall"

// dieWithParent lets the system kill a process when the test process is gone,
// however it went.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
