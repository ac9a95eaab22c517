package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

// Options configures [Ensure]. The zero value of a field means its default.
type Options struct {
	// Replicas is 1 or 3; 0 means 3 where the cluster has three JetStream
	// servers and 1 elsewhere.
	Replicas int
	// Lease is the lease of nodes and of the owner, in whole seconds. It is
	// settled by the first process of a namespace; later ones get what is
	// stored. Default 6s on a single server, 15s on a cluster.
	Lease time.Duration
	// Holder names this process to others that wait for it. Default: the
	// connection's name and ID.
	Holder string
	// Logger is told of what is created and updated. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) validate() error {
	if o.Replicas != 0 && o.Replicas != 1 && o.Replicas != 3 {
		return fmt.Errorf("streams: replicas is %d: use 1, 3, or 0 for what fits the cluster", o.Replicas)
	}
	if o.Lease != 0 && (o.Lease < 2*time.Second || o.Lease%time.Second != 0) {
		return fmt.Errorf("streams: lease is %v: use whole seconds, two at least", o.Lease)
	}
	return nil
}

// Settings is what all processes of a namespace agree on: the key settings of
// the config bucket.
type Settings struct {
	// Version is the version of the assets as they were last written.
	Version int `json:"version"`
	// Lease is the lease of nodes and of the owner.
	Lease time.Duration `json:"lease"`
}

const (
	// minLevel is JetStream's API level of nats-server 2.12.
	minLevel = 2

	clusterLease = 15 * time.Second // longer than an election
	singleLease  = 6 * time.Second

	settingsKey  = "settings"
	bootstrapKey = "bootstrap"
	// bootstrapTTL is how long the death of the process that makes the
	// assets holds up the others.
	bootstrapTTL = 4 * time.Second
)

// Ensure makes sure that every asset of the namespace is there and up to date,
// and returns the namespace's settings. Any number of processes may call it at
// once; one of them works, under the bootstrap lease, and the others wait. A
// process without the right to create streams may call it where nothing is to
// be done.
func Ensure(ctx context.Context, ns Namespace, pub *publish.Publisher, opts Options) (Settings, error) {
	if err := opts.validate(); err != nil {
		return Settings{}, err
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Holder == "" {
		opts.Holder = holder(pub.Conn())
	}
	js, err := jetstream.New(pub.Conn())
	if err != nil {
		return Settings{}, fmt.Errorf("streams: open JetStream: %w", err)
	}
	if err := checkServer(ctx, pub.Conn(), js); err != nil {
		return Settings{}, err
	}
	b := &bootstrap{ns: ns, pub: pub, js: js, opts: opts,
		config: kv.Open(pub, ns.Bucket(Config), kv.JSON[Settings]())}
	for {
		settings, err := b.settled(ctx)
		if err == nil || !errors.Is(err, errUnsettled) {
			return settings, err
		}
		if err := b.run(ctx); err != nil {
			return Settings{}, err
		}
	}
}

// errUnsettled says that assets are missing or old.
var errUnsettled = errors.New("streams: assets are to be made")

type bootstrap struct {
	ns     Namespace
	pub    *publish.Publisher
	js     jetstream.JetStream
	opts   Options
	config *kv.Bucket[Settings]
}

// settled returns the settings if nothing is to be done. The settings are
// written last, so their version tells.
func (b *bootstrap) settled(ctx context.Context) (Settings, error) {
	if _, err := b.js.Stream(ctx, b.ns.bucketStream(Config)); errors.Is(err, jetstream.ErrStreamNotFound) {
		return Settings{}, errUnsettled
	}
	entry, err := b.config.Get(ctx, settingsKey)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return Settings{}, errUnsettled
	case err != nil:
		return Settings{}, fmt.Errorf("streams: read the settings of namespace %s: %w", b.ns, err)
	case entry.Value.Version > Version:
		return Settings{}, fmt.Errorf("streams: namespace %s was set up by a newer build (assets %d, this build knows %d): upgrade this process",
			b.ns, entry.Value.Version, Version)
	case entry.Value.Version < Version:
		return Settings{}, errUnsettled
	}
	for _, config := range append(b.ns.assets(), b.ns.leases()) {
		if _, err := b.js.Stream(ctx, config.Name); errors.Is(err, jetstream.ErrStreamNotFound) {
			return Settings{}, errUnsettled
		} else if err != nil {
			return Settings{}, fmt.Errorf("streams: look for stream %s: %w", config.Name, err)
		}
	}
	return entry.Value, nil
}

// run makes the assets, or waits until somebody else may have.
func (b *bootstrap) run(ctx context.Context) error {
	replicas, clustered, err := b.first(ctx)
	if err != nil {
		return err
	}
	return UnderBootstrap(ctx, b.ns, b.pub, b.opts.Holder, func(ctx context.Context) error {
		if _, err := b.settled(ctx); !errors.Is(err, errUnsettled) {
			return err // somebody else was first
		}
		for _, config := range b.ns.assets() {
			if err := b.put(ctx, complete(config, replicas)); err != nil {
				return err
			}
		}
		return b.settle(ctx, clustered)
	})
}

// first makes the stream of leases, and finds out how many replicas there are
// to be and whether the server is part of a cluster.
func (b *bootstrap) first(ctx context.Context) (replicas int, clustered bool, err error) {
	stream, err := b.js.Stream(ctx, b.ns.bucketStream(Leases))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.createLeases(ctx)
	}
	if err != nil {
		return 0, false, fmt.Errorf("streams: create the leases of namespace %s: %w", b.ns, explain(err))
	}
	info := stream.CachedInfo()
	replicas = info.Config.Replicas
	if b.opts.Replicas != 0 {
		replicas = b.opts.Replicas
	}
	return replicas, info.Cluster != nil && info.Cluster.Name != "", nil
}

// createLeases tries three replicas first, unless told otherwise.
func (b *bootstrap) createLeases(ctx context.Context) (jetstream.Stream, error) {
	tries := []int{3, 1}
	if b.opts.Replicas != 0 {
		tries = []int{b.opts.Replicas}
	}
	var stream jetstream.Stream
	var err error
	for _, replicas := range tries {
		stream, err = b.js.CreateStream(ctx, complete(b.ns.leases(), replicas))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // made by another process, otherwise
			return b.js.Stream(ctx, b.ns.bucketStream(Leases))
		}
		if !tooFewServers(err) {
			return stream, err
		}
	}
	return stream, err
}

// put creates a stream or brings it up to date.
func (b *bootstrap) put(ctx context.Context, config jetstream.StreamConfig) error {
	stream, err := b.js.Stream(ctx, config.Name)
	if err == nil && stream.CachedInfo().Config.Metadata[versionKey] == config.Metadata[versionKey] &&
		stream.CachedInfo().Config.Replicas == config.Replicas {
		return nil
	}
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("streams: look for stream %s: %w", config.Name, err)
	}
	if _, err := b.js.CreateOrUpdateStream(ctx, config); err != nil {
		return fmt.Errorf("streams: create stream %s: %w", config.Name, explain(err))
	}
	b.opts.Logger.InfoContext(ctx, "stream created", "stream", config.Name, "replicas", config.Replicas)
	return nil
}

// settle writes the settings, keeping what an older build had settled.
func (b *bootstrap) settle(ctx context.Context, clustered bool) error {
	fresh := Settings{Version: Version, Lease: b.opts.Lease}
	if fresh.Lease == 0 {
		fresh.Lease = singleLease
		if clustered {
			fresh.Lease = clusterLease
		}
	}
	_, err := b.config.Create(ctx, settingsKey, fresh)
	if !errors.Is(err, kv.ErrExists) {
		return err
	}
	_, err = b.config.Edit(ctx, settingsKey, func(s Settings) (Settings, error) {
		s.Version = Version
		return s, nil
	})
	return err
}

// UnderBootstrap runs f while this process, and no other, holds the bootstrap
// lease: f edits the configuration of streams, which has no revisions of its
// own. The context of f ends with the lease.
func UnderBootstrap(ctx context.Context, ns Namespace, pub *publish.Publisher, holder string, f func(context.Context) error) error {
	bucket := kv.Open(pub, ns.Bucket(Leases), kv.JSON[kv.Held]())
	for {
		lease, err := kv.Take(ctx, bucket, bootstrapKey, holder, kv.LeaseOptions{TTL: bootstrapTTL})
		if err == nil {
			return hold(ctx, lease, f)
		}
		if !errors.Is(err, kv.ErrHeld) && !kv.Unknown(err) {
			return fmt.Errorf("streams: take the bootstrap lease of namespace %s: %w", ns, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("streams: wait for the bootstrap lease of namespace %s: %w (%w)", ns, context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// hold keeps the lease while f runs.
func hold(ctx context.Context, lease *kv.Lease, f func(context.Context) error) error {
	keeping, stop := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() { kept <- lease.Keep(keeping) }()
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(lease.Context(), func() { cancel(kv.ErrLeaseLost) })()
	err := f(working)
	stop()
	<-kept
	return errors.Join(err, lease.Release(ctx))
}

// checkServer says plainly what a server lacks.
func checkServer(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	info, err := js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("streams: %s has no JetStream: start nats-server with -js, or use an account that has it", nc.ConnectedUrlRedacted())
	case err != nil:
		return fmt.Errorf("streams: ask %s for JetStream: %w", nc.ConnectedUrlRedacted(), explain(err))
	case info.API.Level < minLevel:
		return fmt.Errorf("streams: %s runs nats-server %s, which is too old: 2.12 or later is needed", nc.ConnectedUrlRedacted(), nc.ConnectedServerVersion())
	}
	return nil
}

// explain adds to an error of the server what can be done about it.
func explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		return fmt.Errorf("no answer from JetStream: it has no leader, or this user may not use $JS.API.> (%w)", err)
	}
	return err
}

// tooFewServers reports whether a stream cannot have that many replicas here.
func tooFewServers(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	const notClustered, noPeers = 10074, 10005
	return api.ErrorCode == notClustered || api.ErrorCode == noPeers
}

func holder(nc *nats.Conn) string {
	id, _ := nc.GetClientID() // 0 only while it is not connected
	return nc.Opts.Name + "#" + strconv.FormatUint(id, 10)
}
