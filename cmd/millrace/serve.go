package main

import (
	"context"

	"github.com/millrace/millrace/engine"
)

type serveCmd struct {
	Node string `help:"Stable ID of this process. Default: the host's name and four random characters." placeholder:"ID"`
	HTTP string `name:"http" help:"Address for /healthz, /readyz and /metrics. Default: none." placeholder:"ADDR"`
}

// Run runs the engine until the process is asked to stop. It waits for NATS.
func (c serveCmd) Run(ctx context.Context, e *env) error {
	if err := checkNode(c.Node); err != nil {
		return err
	}
	ln, err := listen("--http", c.HTTP)
	if err != nil {
		return err
	}
	registry, up := metrics(ln), new(readiness)
	return together(ctx, health(ln, up.ready, registry), func(ctx context.Context) error {
		eng, shut, err := e.stay(ctx, engine.Options{Node: c.Node, Logger: e.logger(), Registerer: registerer(registry)})
		if err != nil {
			return unlessStopped(ctx, err)
		}
		defer shut()
		up.of(eng)
		e.logger().Info("serving", "server", e.where(), "namespace", e.Namespace, "http", address(ln))
		return eng.Serve(ctx)
	})
}
