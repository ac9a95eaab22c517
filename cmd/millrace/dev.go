package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

type devCmd struct {
	Dir      string `help:"Folder for the data. Default: millrace in the user's data folder." placeholder:"DIR"`
	Listen   string `help:"Address of NATS. Default: ${default}." default:"127.0.0.1:4222" placeholder:"ADDR"`
	HTTP     string `name:"http" help:"Address for /healthz, /readyz and /metrics; empty for none. Default: ${default}." default:"127.0.0.1:8222" placeholder:"ADDR"`
	NoEngine bool   `help:"Run NATS alone."`
}

// Run runs NATS and the engine until the process is asked to stop.
func (c devCmd) Run(ctx context.Context, e *env) error {
	if c.Dir == "" {
		dir, err := dataDir()
		if err != nil {
			return err
		}
		c.Dir = dir
	}
	srv, err := embedded.Start(ctx, embedded.Options{Dir: c.Dir, Listen: c.Listen, Logger: e.logger()})
	if err != nil {
		return err
	}
	defer srv.Close()
	ln, err := listen("--http", c.HTTP)
	if err != nil {
		return err
	}
	if c.NoEngine {
		c.greet(e, srv, ln)
		return together(ctx, health(ln, func() bool { return true }, nil))
	}
	nc, err := srv.Connect(append(engine.ConnectOptions(), nats.Name("millrace dev"))...)
	if err != nil {
		return err
	}
	defer nc.Close()
	registry := metrics(ln)
	eng, err := e.open(ctx, nc, engine.Options{Logger: e.logger(), Registerer: registerer(registry)})
	if err != nil {
		return err
	}
	defer eng.Close()
	c.greet(e, srv, ln)
	return together(ctx, eng.Serve, health(ln, eng.Ready, registry))
}

// greet says where everything is, and what to do next.
func (c devCmd) greet(e *env, srv *embedded.Server, ln net.Listener) {
	flag := ""
	if srv.URL() != defaultServer {
		flag = " --server " + srv.URL()
	}
	engine := "namespace " + e.Namespace
	if c.NoEngine {
		engine = "none"
	}
	health := "none"
	if ln != nil {
		health = address(ln) + "/readyz"
	}
	fmt.Fprintf(e.stdout, `NATS    %s
data    %s
engine  %s
health  %s

Try this in two other terminals:
  millrace worker%s --exec 'shout=tr a-z A-Z'
  millrace job submit%s shout --input '"hello"' --wait

Ctrl-C ends it; the data stays.
`, srv.URL(), c.Dir, engine, health, flag, flag)
}

// dataDir returns the folder for data of this user.
func dataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "millrace"), nil
	}
	if dir := os.Getenv("LocalAppData"); runtime.GOOS == "windows" && dir != "" {
		return filepath.Join(dir, "millrace"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usage(fmt.Errorf("find the user's data folder: %w: give one by --dir", err))
	}
	return filepath.Join(home, ".local", "share", "millrace"), nil
}
