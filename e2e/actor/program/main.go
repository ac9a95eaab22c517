// Command program is what a user might write around the engine: a worker with
// handlers in Go, a submitter, a keeper of schedules, and a mark that handlers of other languages make in
// the ledger. The harness builds it, runs many of it, and does harm to them.
//
// Start reading at [cli]. What its handlers and submits do is in package actor.
//
//	NATS_URL               the servers, with commas
//	MILLRACE_E2E_LEDGER    the file to write into
//	MILLRACE_E2E_PROCESS   the name of this life of the process, such as w1#2
//	MILLRACE_E2E_CLOCK     how far its clock was set wrong, such as 5m; default 0s
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/ledger"
)

// cli is the command line.
type cli struct {
	Work   workCmd   `cmd:"" help:"Run jobs until SIGTERM, which drains; a second one ends the handlers."`
	Submit submitCmd `cmd:"" help:"Submit jobs until all are certain, or until SIGTERM."`
	Keep   keepCmd   `cmd:"" help:"Apply schedules, and edit them at random."`
	Mark   markCmd   `cmd:"" help:"Write the start or the end of a handler that is a command of millrace worker."`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "program: %v\n", err)
		os.Exit(1)
	}
}

// run runs what the command line says.
func run() error {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	var c cli
	command := kong.Parse(&c, kong.Name("program"))
	skew, err := clock()
	if err != nil {
		return err
	}
	written, err := ledger.Open(os.Getenv("MILLRACE_E2E_LEDGER"), skew)
	if err != nil {
		return err
	}
	defer written.Close()
	command.BindTo(context.Background(), (*context.Context)(nil))
	return command.Run(&actor.Actor{Ledger: written, Process: os.Getenv("MILLRACE_E2E_PROCESS")})
}

// clock returns how far the clock of this process was set wrong.
func clock() (time.Duration, error) {
	text := os.Getenv("MILLRACE_E2E_CLOCK")
	if text == "" {
		return 0, nil
	}
	skew, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("MILLRACE_E2E_CLOCK is %q: write it like 5m or -30s", text)
	}
	return skew, nil
}
