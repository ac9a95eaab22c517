package main

import (
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/millrace/millrace/embedded"
)

type versionCmd struct{}

// versionFlag is the same as a flag, which takes the place of a command.
type versionFlag bool

// BeforeReset prints the version before anything is demanded of the line.
func (versionFlag) BeforeReset(app *kong.Kong, e *env) error {
	err := versionCmd{}.Run(e)
	app.Exit(status(err))
	return err
}

// build is what this program was made of.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	NATS    string `json:"nats_server"` // that is built in
}

// version reads what the Go command wrote into the program.
func version() build {
	b := build{Version: "unknown", Go: runtime.Version(), NATS: embedded.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Commit = s.Value
		}
	}
	return b
}

// Run prints the version.
func (versionCmd) Run(e *env) error {
	b := version()
	return describe(e, b, []field{
		{"millrace", b.Version},
		{"commit", b.Commit},
		{"go", b.Go},
		{"nats-server", b.NATS},
	})
}
