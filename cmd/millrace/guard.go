package main

import "github.com/millrace/millrace/cmd/millrace/program"

type guardCmd struct{}

// Run waits for the end of the worker, and kills the commands that it left.
func (guardCmd) Run(e *env) error {
	program.Guard(e.stdin)
	return nil
}
