package store

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
)

// Tally counts the jobs of a queue by their states. It reads the headers of all
// their records; one that moves meanwhile may be missing.
func (s *Store) Tally(ctx context.Context, queue string) (map[machine.State]int, error) {
	n := map[machine.State]int{}
	err := s.jobs.Headers(ctx, queue+".*", func(_ string, h nats.Header) error {
		n[LookAt(h).State]++
		return nil
	})
	return n, err
}
