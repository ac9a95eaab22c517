package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/e2e/ledger"
)

// Server is one nats-server, n1 to n3. In the ledger all its lives have that
// name.
type Server struct {
	Life
	client, route, monitor string // addresses on which it listens, in every life
}

// server makes the i-th server; Start starts it.
func (c *Cluster) server(i int) *Server {
	c.t.Helper()
	s := &Server{client: c.address(), route: c.address(), monitor: c.address()}
	s.c, s.name, s.health = c, fmt.Sprintf("n%d", i), "http://"+s.monitor+"/healthz?js-server-only=true"
	program := command{role: ledger.Server, path: c.programs.server()}
	if i <= len(c.opts.Clocks) {
		s.setClock(&program, c.opts.Clocks[i-1])
	}
	s.command = func(int) command {
		config := filepath.Join(c.Dir, s.name+".conf")
		if err := os.WriteFile(config, []byte(s.config()), 0o600); err != nil {
			c.t.Error(err)
		}
		program.process, program.args = s.name, []string{"-c", config}
		return program
	}
	return s
}

// config returns the configuration file of s.
func (s *Server) config() string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("server_name: %s", s.name)
	line("server_tags: [%s]", s.name)
	line("listen: %q", s.client)
	line("http: %q", s.monitor)
	line("jetstream {")
	line("  store_dir: %q", filepath.Join(s.c.Dir, s.name))
	if s.c.opts.Sync != "" {
		line("  sync_interval: %s", s.c.opts.Sync)
	}
	if s.c.opts.MaxStore > 0 {
		line("  max_file_store: %d", s.c.opts.MaxStore)
	}
	line("}")
	if len(s.c.servers) > 1 {
		line("cluster {")
		line("  name: e2e")
		line("  listen: %q", s.route)
		line("  no_advertise: true")
		line("  advertise: %q", nowhere)
		line("  routes: [%s]", strings.Join(s.c.routesFor(s), ", "))
		line("}")
	}
	return text.String()
}

// routesFor returns where s is to find the other servers.
func (c *Cluster) routesFor(s *Server) []string {
	var routes []string
	for _, other := range c.servers {
		if other != s {
			routes = append(routes, "nats://"+s.routeTo(other).Addr())
		}
	}
	return routes
}

// urlFor returns where the process of that name, in whichever life, is to find
// the servers.
func (c *Cluster) urlFor(name string) string {
	c.t.Helper()
	var urls []string
	for _, s := range c.servers {
		urls = append(urls, "nats://"+c.link(name, s, s.client).Addr())
	}
	return strings.Join(urls, ",")
}

// directURL returns where the servers really are.
func (c *Cluster) directURL() string {
	var urls []string
	for _, s := range c.servers {
		urls = append(urls, s.URL())
	}
	return strings.Join(urls, ",")
}

// URL is where the server listens for clients.
func (s *Server) URL() string { return "nats://" + s.client }

// Server returns the server ni; they count from 1.
func (c *Cluster) Server(i int) *Server { return c.servers[i-1] }

// Servers returns all servers, whether they run or not.
func (c *Cluster) Servers() []*Server { return c.servers }

// KillServers kills all servers that run, at once.
func (c *Cluster) KillServers() {
	c.t.Helper()
	var running []*Server
	for _, s := range c.servers {
		if s.Alive() {
			running = append(running, s)
		}
	}
	for _, s := range running {
		s.shoot()
	}
	for _, s := range running {
		<-s.current().done
	}
}

// StartServers starts all servers that do not run. It does not wait: see
// [Cluster.Settle].
func (c *Cluster) StartServers() {
	c.t.Helper()
	for _, s := range c.servers {
		if !s.Alive() {
			s.Start()
		}
	}
}
