package follow_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/natstest"
)

// A server that is stopped and started again, time after time.
func TestRestart(t *testing.T) {
	t.Parallel()
	srv := natstest.StartListening(t, t.TempDir())
	reader, nc := srv.Connect(), srv.Connect()
	js := open(t, nc)
	makeStream(t, js)
	f := start(t, reader, follow.Options{})
	var want []string
	for i := range 5 {
		store(t, js, fmt.Sprint("s.", i, ".a"))
		want = append(want, fmt.Sprintf("%d%d.a", 2*i+1, i))
		if i%2 == 0 {
			f.want(strings.Join(want, " "))
		}
		srv.Stop()
		srv.Start()
		store(t, js, fmt.Sprint("s.", i, ".b"))
		want = append(want, fmt.Sprintf("%d%d.b", 2*i+2, i))
		f.want(strings.Join(want, " "))
	}
}

// Leaders of a cluster that step down, and then the server goes that has the
// consumer.
func TestRestartCluster(t *testing.T) {
	t.Parallel()
	servers := natstest.StartCluster(t, natstest.ClusterOptions(t))
	reader, nc := connect(t, servers), connect(t, servers)
	js := open(t, nc)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: len(servers)})
	if err != nil {
		t.Fatal(err)
	}
	f, want := start(t, reader, follow.Options{}), ""
	for n := range 4 {
		store(t, js, "s.a")
		want = strings.TrimSpace(fmt.Sprint(want, " ", n+1, "a"))
		f.want(want)
		if n == 3 {
			break
		}
		stepDown(t, nc)
	}
	for _, srv := range servers {
		if srv.JetStreamIsConsumerLeader(server.DEFAULT_GLOBAL_ACCOUNT, "S", consumers(t, js)[0]) {
			srv.Shutdown()
			break
		}
	}
	store(t, js, "s.b")
	f.want(want + " 5b")
}

// stepDown has the leader of S step down, asking until there is an answer.
func stepDown(t *testing.T, nc *nats.Conn) {
	t.Helper()
	for {
		_, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.S", nil, 5*time.Second)
		if err == nil {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// connect connects to any of some servers until the test ends.
func connect(t *testing.T, servers []*server.Server) *nats.Conn {
	t.Helper()
	var urls []string
	for _, srv := range servers {
		urls = append(urls, srv.ClientURL())
	}
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
