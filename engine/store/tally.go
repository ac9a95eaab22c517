package store

import (
	"context"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/kv"
)

// Tally counts the jobs of a queue by their states. It reads the headers of all
// their records; one that moves meanwhile may be missing.
func (s *Store) Tally(ctx context.Context, queue string) (map[machine.State]int, error) {
	n := map[machine.State]int{}
	_, err := s.jobs.Headers(ctx, queue+".*", func(h kv.Head) error {
		n[LookAt(h.Header).State]++
		return nil
	})
	return n, err
}
