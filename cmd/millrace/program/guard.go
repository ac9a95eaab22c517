package program

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

// guard is a second process of a worker. It does nothing but kill, when the
// worker has died without a chance to do so, the commands that it left. It knows
// them by what the worker writes to its standard input: "+" and the process ID
// of one that starts, "-" and that of one that has ended.
type guard struct {
	cmd  *exec.Cmd
	tell *os.File
}

// startGuard starts a guard of this process: the same binary with an argument.
func startGuard(argument string) (*guard, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	listen, tell, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	defer listen.Close()
	cmd := exec.Command(self, argument)
	cmd.Stdin = listen
	own(cmd)
	if err := cmd.Start(); err != nil {
		tell.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return &guard{cmd, tell}, nil
}

// started and ended fail only if the guard was killed: then nobody watches over
// the commands, and they run all the same.
func (g *guard) started(pid int) { _, _ = fmt.Fprintf(g.tell, "+%d\n", pid) }
func (g *guard) ended(pid int)   { _, _ = fmt.Fprintf(g.tell, "-%d\n", pid) }

// close ends the guard, which kills what is left.
func (g *guard) close() {
	_ = g.tell.Close()
	_ = g.cmd.Wait() // it has nothing to say
}

// Guard waits for the end of a worker, which is that of what it says, and kills
// the commands that it left. Whoever stops a group of processes means the worker:
// the guard ends by itself then.
func Guard(worker io.Reader) {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	for pid := range watchOver(worker) {
		killGroup(pid)
	}
}

// watchOver reads what a worker says until its end, and returns the commands
// that have not ended by then.
func watchOver(worker io.Reader) map[int]bool {
	left := map[int]bool{}
	for words := bufio.NewScanner(worker); words.Scan(); {
		line := words.Text()
		if len(line) < 2 {
			continue
		}
		pid, err := strconv.Atoi(line[1:])
		switch {
		case err != nil || pid <= 1: // a group of everybody is none of ours
		case line[0] == '+':
			left[pid] = true
		case line[0] == '-':
			delete(left, pid)
		}
	}
	return left
}
