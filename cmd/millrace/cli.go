package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/millrace/millrace/cmd/millrace/program"
	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
)

// cli is the command line.
type cli struct {
	globals
	PrintVersion versionFlag `name:"version" help:"Print the version."`

	Demo      demoCmd      `cmd:"" help:"See events start jobs: NATS, the engine and a worker in this process, for a few seconds."`
	Dev       devCmd       `cmd:"" help:"Run NATS and the engine in this process, until interrupted."`
	Serve     serveCmd     `cmd:"" help:"Run the engine against a NATS that is there, until interrupted."`
	Worker    workerCmd    `cmd:"" help:"Run jobs with programs as handlers, until interrupted."`
	Job       jobCmd       `cmd:"" help:"Submit jobs, look at them, cancel, retry and delete them."`
	Broadcast broadcastCmd `cmd:"" help:"Run a job once on every node; look at broadcasts and sharded jobs, cancel and retry them."`
	Dead      deadCmd      `cmd:"" help:"Look at jobs that have failed for good, and run them once more."`
	Event     eventCmd     `cmd:"" help:"Send events, and see those that no trigger could map."`
	Apply     applyCmd     `cmd:"" help:"Store definitions from YAML files."`
	Queue     queueCmd     `cmd:"" help:"Look at queues, pause and limit them."`
	Trigger   triggerCmd   `cmd:"" help:"Look at triggers, delete them."`
	Schedule  scheduleCmd  `cmd:"" help:"Look at schedules, pause and trigger them, make up for ticks that are over."`
	Node      nodeCmd      `cmd:"" help:"Look at nodes, drain them."`
	Reconcile reconcileCmd `cmd:"" help:"Let the owner look for jobs that lost what drives them, now."`
	Doctor    doctorCmd    `cmd:"" help:"Look at everything, and say what is wrong and what to do about it."`
	Bench     benchCmd     `cmd:"" help:"Measure what a server and this machine can do."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
	Guard     guardCmd     `cmd:"" hidden:"" help:"Watch over the commands of a worker."`
}

// globals are the flags of every command.
type globals struct {
	Server    string `help:"URL of NATS, or several with commas. Default: nats://127.0.0.1:4222." env:"NATS_URL" placeholder:"URL"`
	Creds     string `help:"File with the credentials of a NATS user." placeholder:"FILE"`
	Namespace string `help:"Installation to use. Default: default." env:"MILLRACE_NAMESPACE" placeholder:"NAME"`
	JSDomain  string `name:"js-domain" help:"JetStream domain of the installation, as on a leaf node. Default: that of the server." env:"MILLRACE_JS_DOMAIN" placeholder:"NAME"`
	Output    string `help:"How to print: ${enum}; yaml is for schedule get. A list in JSON is one object a line." enum:"table,json,yaml" default:"table"`
}

// defaultServer is where NATS listens unless told otherwise.
const defaultServer = "nats://127.0.0.1:4222"

// withDefaults takes an empty variable for one that is not set.
func (g globals) withDefaults() globals {
	g.Server = cmp.Or(g.Server, defaultServer)
	g.Namespace = cmp.Or(g.Namespace, "default")
	return g
}

// env is what a command gets from its process.
type env struct {
	globals
	given          bool // the server was: --server or NATS_URL
	stdin          io.Reader
	stdout, stderr io.Writer
	programs       *program.Running // that run as handlers
	interrupts     *interrupts      // requests to stop
}

// The exit statuses.
const (
	done   = 0
	failed = 1
	misuse = 2
	behind = 3 // somebody else has changed what was to be changed
)

// execute runs one command line and returns the exit status.
func execute(args []string) int {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, programs: &program.Running{}}
	ctx, interrupts, stop := interruptible(e.programs.Kill)
	defer stop()
	e.interrupts = interrupts
	if len(args) == 0 {
		args = []string{"--help"}
	}
	err := e.run(ctx, args)
	e.report(err)
	e.showConflict(err)
	return status(err)
}

func (e *env) run(ctx context.Context, args []string) error {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("millrace"),
		kong.Description("An event-driven job engine that needs nothing but NATS."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(e),
	)
	if err != nil {
		return err
	}
	command, err := parser.Parse(joined(args))
	if err != nil {
		return usage(fmt.Errorf("%w: see millrace %s--help", err, path(err)))
	}
	if err := alone(command); err != nil {
		return usage(err)
	}
	e.globals, e.given = c.globals.withDefaults(), c.Server != ""
	if err := errors.Join(name.Check("namespace", e.Namespace), publish.CheckDomain(e.JSDomain)); err != nil {
		return usage(err)
	}
	if e.Output == "yaml" && command.Command() != "schedule get <name>" {
		return usage(errors.New("--output yaml is for schedule get: use table or json"))
	}
	return command.Run()
}

// joined returns args with negative values joined to their flags, so that it is the
// command that says what is wrong with --delay -1s: a value that stands alone would be
// taken for a flag.
func joined(args []string) []string {
	list := make([]string, 0, len(args))
	for i, arg := range args {
		if arg == "--" {
			return append(list, args[i:]...)
		}
		last := len(list) - 1
		if negative.MatchString(arg) && last >= 0 && strings.HasPrefix(list[last], "--") && !strings.Contains(list[last], "=") {
			list[last] += "=" + arg
			continue
		}
		list = append(list, arg)
	}
	return list
}

var negative = regexp.MustCompile(`^-[0-9]`)

// alone refuses flags that name a server where none is asked. Variables such as
// NATS_URL are set for other commands, and do no harm.
func alone(command *kong.Context) error {
	if !slices.Contains([]string{"demo", "dev", "version"}, command.Command()) {
		return nil
	}
	for _, p := range command.Path {
		if p.Flag != nil && slices.Contains([]string{"server", "creds", "js-domain"}, p.Flag.Name) {
			return fmt.Errorf("%s takes no --%s: leave it out", command.Command(), p.Flag.Name)
		}
	}
	return nil
}

// path returns the command that a line got to before it went wrong, with a
// space behind it.
func path(err error) string {
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context == nil || parse.Context.Selected() == nil {
		return ""
	}
	_, words, _ := strings.Cut(parse.Context.Selected().FullPath(), " ")
	return words + " "
}

// misused is an error in what the command was given: nothing was tried.
type misused struct{ error }

func (m misused) Unwrap() error { return m.error }

// usage marks an error, if there is one, as one of the caller of the command.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return misused{err}
}

// status maps errors to exit statuses.
func status(err error) int {
	var m misused
	switch {
	case err == nil:
		return done
	case errors.As(err, &m):
		return misuse
	case errors.Is(err, engine.ErrConflict):
		return behind
	}
	return failed
}

// report prints what went wrong, each thing on a line of its own.
func (e *env) report(err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(e.stderr, "millrace: %s\n", show.Plain(strings.TrimRight(line, "\n"), math.MaxInt))
	}
}
