package natstest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports lie below those that systems give to whoever connects, or the port of a
// server that is down could be taken by somebody's connection, even by one that
// was to lead there.
const (
	firstPort = 10_000
	portCount = 20_000
)

// Port returns a port of 127.0.0.1 that is the test's until it ends, whether
// somebody listens on it or not.
func Port(t testing.TB) int {
	t.Helper()
	port, claim := ClaimPort(t)
	t.Cleanup(func() { _ = claim.Close() }) // nothing was sent
	return port
}

// ClaimPort is like [Port] until the claim is closed. A claim is a UDP socket of
// the same number, which no two processes can have.
func ClaimPort(t testing.TB) (port int, claim io.Closer) {
	t.Helper()
	var last error
	for range 1000 {
		port := firstPort + rand.IntN(portCount)
		addr := fmt.Sprint("127.0.0.1:", port)
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
		return port, claim
	}
	t.Fatalf("natstest: find a free port from %d on: %v", firstPort, last)
	return 0, nil
}
