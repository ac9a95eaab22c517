package main

import (
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics returns the registry for what a process shows of itself on its
// address: the engine's metrics, and those of Go and of the process. Without a
// listener there is none.
func metrics(ln net.Listener) *prometheus.Registry {
	if ln == nil {
		return nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// registerer is where the engine registers its metrics: nowhere, if nobody can
// read them.
func registerer(registry *prometheus.Registry) prometheus.Registerer {
	if registry == nil {
		return nil
	}
	return registry
}
