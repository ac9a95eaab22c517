package main

import (
	"errors"
	"net"
	"sync"
)

// cable is what a process is connected to NATS by. It can be unplugged.
type cable struct {
	mu        sync.Mutex
	unplugged bool
	conns     []net.Conn
}

// Dial implements nats.CustomDialer.
func (c *cable) Dial(network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unplugged {
		return nil, errors.New("the cable is unplugged")
	}
	conn, err := net.Dial(network, address)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

// unplug breaks all connections, and lets no other come to be.
func (c *cable) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unplugged = true
	for _, conn := range c.conns {
		_ = conn.Close() // it is to break anyway
	}
}
