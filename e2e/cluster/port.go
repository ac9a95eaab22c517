package cluster

import (
	"fmt"

	"github.com/millrace/millrace/internal/natstest"
)

// address returns one where nobody listens. Its port belongs to this cluster as
// long as it lives, which is longer than the test.
func (c *Cluster) address() string {
	c.t.Helper()
	port, claim := natstest.ClaimPort(c.t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims = append(c.claims, claim)
	return fmt.Sprint("127.0.0.1:", port)
}

// giveBack gives all ports back.
func (c *Cluster) giveBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, claim := range c.claims {
		_ = claim.Close() // nothing was sent
	}
}
