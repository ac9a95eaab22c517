package streams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
)

const (
	bootstrapKey = "bootstrap"

	// bootstrapTTL is how long the death of the process that makes the
	// assets holds up the others.
	bootstrapTTL = 4 * time.Second
)

// UnderBootstrap runs f while this process, and no other, holds the bootstrap
// lease: f edits the configuration of streams, which has no revisions of its
// own. It waits for the lease as long as ctx allows. The context of f ends with
// the lease; f should return then, and the error says that the lease was lost.
func UnderBootstrap(ctx context.Context, ns Namespace, pub *publish.Publisher, holder string, f func(context.Context) error) error {
	ctx, stop := untilDenied(ctx, ns, pub)
	defer stop()
	bucket := kv.Open(pub, ns.Bucket(Leases), kv.JSON[kv.Held]())
	opts := kv.LeaseOptions{TTL: bootstrapTTL, Vigil: new(kv.Vigil)}
	var held error // who holds it, as far as is known
	for {
		lease, err := kv.Take(ctx, bucket, bootstrapKey, holder, opts)
		switch {
		case err == nil:
			return denied(ctx, hold(ctx, lease, f))
		case errors.Is(err, kv.ErrHeld):
			held = err
		case ctx.Err() != nil && held != nil:
			err = fmt.Errorf("%w (%w)", held, context.Cause(ctx))
		}
		if ctx.Err() != nil || !errors.Is(err, kv.ErrHeld) && !errors.Is(err, kv.ErrContended) && !transient(err) {
			return denied(ctx, fmt.Errorf("streams: wait for the bootstrap lease of namespace %s: %w", ns, err))
		}
		wait.For(ctx, again)
	}
}

// hold keeps the lease while f runs, and gives it up afterwards. A lease that
// cannot be given up ends by itself.
func hold(ctx context.Context, lease *kv.Lease, f func(context.Context) error) error {
	keeping, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		_ = lease.Keep(keeping) // the lease's context tells
	}()
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(lease.Context(), func() { cancel(kv.ErrLeaseLost) })()
	err := f(working)
	if err != nil && errors.Is(context.Cause(working), kv.ErrLeaseLost) {
		err = fmt.Errorf("%w: %w", kv.ErrLeaseLost, err)
	}
	stop()
	<-kept
	leaving, cancelLeaving := context.WithTimeout(context.WithoutCancel(ctx), bootstrapTTL)
	defer cancelLeaving()
	_ = lease.Release(leaving)
	return err
}

// again is how long to wait before something is tried again.
const again = 50 * time.Millisecond
