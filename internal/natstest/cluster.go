package natstest

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// clusterPatience is how long servers may take to become a cluster: on a crowded
// machine that takes several elections.
const clusterPatience = 3 * patience

// AwaitLeader waits until one of servers leads their cluster and knows all of
// them.
func AwaitLeader(t testing.TB, servers []*server.Server) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(clusterPatience)
	for {
		for _, srv := range servers {
			if srv.JetStreamIsLeader() && len(srv.JetStreamClusterPeers()) == len(servers) {
				return
			}
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("natstest: start cluster: no leader of %d servers after %v", len(servers), clusterPatience)
		}
	}
}
