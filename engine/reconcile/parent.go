package reconcile

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// maxParents bounds how many parents are known at a time.
const maxParents = 100_000

// parents is what the leader said about parents a moment ago, so that thousands of
// children cost one request. It is safe for concurrent use.
type parents struct {
	mu    sync.Mutex
	known map[string]*parent
}

// parent is how a job with children was.
type parent struct {
	turn    chan struct{} // has an element while somebody reads it
	read    bool
	there   bool
	waits   bool
	created time.Time
}

// forget has all parents read anew.
func (p *parents) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = nil
}

// get returns a parent, which the caller must not keep for long.
func (p *parents) get(ctx context.Context, id string, s *store.Store) (*parent, error) {
	p.mu.Lock()
	found := p.known[id]
	if found == nil {
		if p.known == nil || len(p.known) >= maxParents {
			p.known = make(map[string]*parent)
		}
		found = &parent{turn: make(chan struct{}, 1)}
		p.known[id] = found
	}
	p.mu.Unlock()
	select {
	case found.turn <- struct{}{}:
		defer func() { <-found.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if found.read {
		return found, nil
	}
	entry, err := s.Get(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case errors.Is(err, store.ErrUnreadable): // a newer build sees to it
		found.there, found.waits = true, true
	case err != nil:
		return nil, err
	default:
		found.there, found.waits, found.created = true, entry.Value.State == machine.Waiting || !entry.Value.State.Known(), entry.Value.Created
	}
	found.read = true
	return found, nil
}

// alone reports whether the parent of a child is gone, or has ended before the child
// has: whether the child may need something that it would not need otherwise.
func (g *round) alone(ctx context.Context, rec *record) (bool, error) {
	p, err := g.parents.get(ctx, rec.Parent, g.opts.Store)
	if err != nil {
		return false, err
	}
	gone := !p.there || rec.at.Before(p.created) // that one is another job under its ID
	return gone || rec.goes() && !p.waits, nil
}
