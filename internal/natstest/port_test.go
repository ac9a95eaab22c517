package natstest_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/millrace/millrace/internal/natstest"
)

// A port can be listened on, again and again, and meanwhile no other claim has it.
func TestPort(t *testing.T) {
	t.Parallel()
	addr := fmt.Sprint("127.0.0.1:", natstest.Port(t))
	for range 2 {
		if other, err := net.ListenPacket("udp", addr); err == nil {
			other.Close()
			t.Errorf("%s can be claimed twice", addr)
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	}
}
