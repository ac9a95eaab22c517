package program

import (
	"errors"
	"os/exec"
	"sync"
)

// Running is the commands that run now. The zero value has none.
type Running struct {
	mu    sync.Mutex
	guard *guard // nil if nobody watches over them
	pids  map[int]bool
	over  bool
}

// Watch has them watched over until [Running.Kill], by a second process: this
// binary with one argument, which must call [Guard] then.
func (r *Running) Watch(argument string) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guard, err = startGuard(argument)
	return err
}

// start starts a command, unless all have been killed.
func (r *Running) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return errors.New("the worker has ended")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if r.pids == nil {
		r.pids = map[int]bool{}
	}
	r.pids[cmd.Process.Pid] = true
	if r.guard != nil {
		r.guard.started(cmd.Process.Pid)
	}
	return nil
}

func (r *Running) ended(cmd *exec.Cmd) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pids, cmd.Process.Pid)
	if r.guard != nil {
		r.guard.ended(cmd.Process.Pid)
	}
}

// Kill kills whatever runs. Nothing starts any more.
func (r *Running) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for pid := range r.pids {
		killGroup(pid)
	}
	if r.guard != nil {
		r.guard.close()
		r.guard = nil
	}
}
