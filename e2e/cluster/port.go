package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports lie below those that systems give to whoever connects, or the port of a
// server that is down could be taken by somebody's connection.
const (
	firstPort = 10_000
	portCount = 20_000
)

// claims is ports that belong to this cluster as long as it lives, whether
// somebody listens on them or not. A claim is a UDP socket of the same number,
// which no two processes can have.
type claims struct {
	mu   sync.Mutex
	held []net.PacketConn
}

// port claims a port on which nobody listens, and returns its address.
func (c *claims) port() (string, error) {
	var last error
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(portCount))
		claim, err := net.ListenPacket("udp", addr)
		if err != nil {
			last = err
			continue
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			last = err
			_ = claim.Close() // nothing was sent
			continue
		}
		_ = ln.Close() // nobody has connected
		c.mu.Lock()
		c.held = append(c.held, claim)
		c.mu.Unlock()
		return addr, nil
	}
	return "", fmt.Errorf("cluster: find a free port from %d on: %w", firstPort, last)
}

// release gives all ports back.
func (c *claims) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, claim := range c.held {
		_ = claim.Close() // nothing was sent
	}
	c.held = nil
}

// address claims a port, and returns its address.
func (c *Cluster) address() string {
	c.t.Helper()
	addr, err := c.claims.port()
	if err != nil {
		c.t.Fatal(err)
	}
	return addr
}
