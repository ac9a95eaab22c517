// Command look shows a run of a scenario that was kept: what it came to, what
// was wrong with it, and what happened to one job or to one process.
//
//	go run ./e2e/look DIR
//	go run ./e2e/look -job work.17 DIR
//	go run ./e2e/look -process w1 DIR
//
// It exits with status 1 if the run has violations, and 2 if it cannot be read or
// has no such job or process.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/e2e/oracle"
)

func main() { os.Exit(look(os.Args[1:], os.Stdout, os.Stderr)) }

// printed is how many violations are shown in full.
const printed = 20

// look shows a run and returns the exit status.
func look(args []string, out, problems io.Writer) int {
	flags := flag.NewFlagSet("look", flag.ContinueOnError)
	flags.SetOutput(problems)
	job := flags.String("job", "", "show what happened to this job, such as work.17")
	process := flags.String("process", "", "show what happened to this process, such as w1, or w1#2 for one life")
	flags.Usage = func() {
		fmt.Fprintln(problems, "usage: go run ./e2e/look [-job ID] [-process NAME] DIR")
		flags.PrintDefaults()
	}
	dir, err := folder(flags, args)
	if err != nil {
		return 2
	}
	run, err := oracle.Load(dir)
	if err != nil {
		fmt.Fprintf(problems, "look: %v: name the folder that the test printed\n", err)
		return 2
	}
	switch {
	case *job != "":
		return tell(out, problems, run.Timeline(*job), "job "+*job)
	case *process != "":
		return tell(out, problems, run.Biography(*process), "process "+*process)
	}
	violations := run.Check()
	show(out, run, violations)
	places(out, dir)
	if len(violations) > 0 {
		return 1
	}
	return 0
}

// tell shows what is known of one thing, and returns the exit status.
func tell(out, problems io.Writer, known, what string) int {
	if known == "" {
		fmt.Fprintf(problems, "look: the run has no %s: its ledger.jsonl has the names of those that there are\n", what)
		return 2
	}
	fmt.Fprint(out, known)
	return 0
}

// folder parses the arguments: flags may stand before and after the folder.
func folder(flags *flag.FlagSet, args []string) (string, error) {
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	dir := flags.Arg(0)
	if flags.NArg() > 1 {
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return "", err
		}
		if flags.NArg() > 0 {
			dir = ""
		}
	}
	if dir == "" {
		flags.Usage()
		return "", flag.ErrHelp
	}
	return dir, nil
}

// show prints what is known of a run, and what is wrong with it.
func show(out io.Writer, run oracle.Run, violations []oracle.Violation) {
	fmt.Fprintf(out, "%s  seed %d  lease %v  servers %d\n", run.Test, run.Seed, run.Lease, run.Servers)
	if run.Unlisted {
		fmt.Fprintln(out, "It broke off before its jobs were listed: how they ended is not known.")
	}
	fmt.Fprintf(out, "%v\nviolations  %d\n", run.Figures(), len(violations))
	for i, v := range violations {
		if i == printed {
			fmt.Fprintf(out, "\nand %d more\n", len(violations)-printed)
			break
		}
		fmt.Fprintf(out, "\n%v", v)
	}
}

// places prints where to look next: the logs of processes, and the stores of
// servers and how to open one. Those of several servers hold only together.
func places(out io.Writer, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the patterns are well-formed
	stores, _ := filepath.Glob(filepath.Join(dir, "*", "jetstream"))
	if len(logs) > 0 {
		fmt.Fprintf(out, "\nlogs        %s\n", filepath.Join(dir, "*.log"))
	}
	switch len(stores) {
	case 0:
	case 1:
		fmt.Fprintf(out, "store       go run ./cmd/millrace dev --no-engine --dir %s\n", filepath.Dir(stores[0]))
	default:
		fmt.Fprintf(out, "stores      %s, of one cluster\n", filepath.Join(dir, "n*"))
	}
}
