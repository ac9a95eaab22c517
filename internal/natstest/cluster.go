package natstest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// clusterPatience is how long servers may take to become a cluster: on a crowded
// machine that takes several elections.
const clusterPatience = 3 * patience

// ClusterOptions are those of three JetStream servers that know each other.
func ClusterOptions(t testing.TB) []*server.Options {
	t.Helper()
	var ports [3]int // a cluster has to know its servers before they run
	var routes []string
	for i := range ports {
		ports[i] = Port(t)
		routes = append(routes, fmt.Sprint("nats://127.0.0.1:", ports[i]))
	}
	all := make([]*server.Options, len(ports))
	for i, port := range ports {
		all[i] = &server.Options{
			ServerName: fmt.Sprint("s", i+1), Host: "127.0.0.1", Port: Port(t), JetStream: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
		}
	}
	return all
}

// StartCluster runs servers as a cluster until the test ends, and waits until one leads
// it and knows all of them. It does not work in a bubble.
func StartCluster(t testing.TB, all []*server.Options) []*server.Server {
	t.Helper()
	servers := make([]*server.Server, len(all))
	for i, opts := range all {
		servers[i] = StartWith(t, opts)
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(clusterPatience)
	for {
		for _, srv := range servers {
			if srv.JetStreamIsLeader() && len(srv.JetStreamClusterPeers()) == len(servers) {
				return servers
			}
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("natstest: start cluster: no leader of %d servers after %v", len(servers), clusterPatience)
		}
	}
}
