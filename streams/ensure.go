package streams

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
)

// Options configures [Ensure]. The zero value of a field means its default.
type Options struct {
	// Replicas is 1 or 3; 0 means 3 where the cluster has three JetStream
	// servers and 1 elsewhere. It is settled by the first process of a
	// namespace.
	Replicas int
	// Gather is how long the first process of a namespace waits for a cluster to
	// have three servers. Default 10s: they may be starting right now, and one
	// replica would stay one.
	Gather time.Duration
	// Lease is the lease of nodes and of the owner, in whole seconds. It is
	// settled by the first process of a namespace; later ones get what is
	// stored. Default 6s on a single server, 15s on a cluster.
	Lease time.Duration
	// Holder names this process to others that wait for it. Default: the
	// connection's name and ID.
	Holder string
	// Existing refuses to create anything: the namespace must be there.
	Existing bool
	// Patience is for how long what may pass is tried again, after the first
	// failure. Default [Patience], but 2s where no JetStream is reached. A server
	// that has none, and is alone, is given no longer in any case.
	Patience time.Duration
	// Then is what else the process does before it can begin. It is tried again
	// with the rest. Default: nothing.
	Then func(context.Context) error
	// Logger is told of what is created and updated, and of what is waited for.
	// Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults(nc *nats.Conn) Options {
	if o.Holder == "" {
		id, _ := nc.GetClientID() // 0 while it is not connected
		o.Holder = nc.Opts.Name + "#" + strconv.FormatUint(id, 10)
	}
	if o.Then == nil {
		o.Then = func(context.Context) error { return nil }
	}
	if o.Gather == 0 {
		o.Gather = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	if o.Replicas != 0 && o.Replicas != 1 && o.Replicas != 3 {
		return fmt.Errorf("streams: replicas is %d: use 1, 3, or 0 for what fits the cluster", o.Replicas)
	}
	if o.Lease != 0 {
		return checkLease(o.Lease)
	}
	return nil
}

func checkLease(lease time.Duration) error {
	if lease < 2*time.Second || lease%time.Second != 0 {
		return fmt.Errorf("streams: lease is %v: use whole seconds, two at least", lease)
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
	clusterLease = 15 * time.Second // longer than an election
	singleLease  = 6 * time.Second

	settingsKey = "settings"

	// requestTime is how long a request waits for its answer. In a cluster
	// those that arrive before a new stream has a leader get none.
	requestTime = time.Second

	// linkTime is for how long Ensure tries again where no JetStream is reached: a
	// server may be about to end, a leaf node may just have found its hub.
	linkTime = 2 * time.Second
)

// Patience is for how long [Ensure] tries again by default: longer than an
// election, and than it takes to leave a server that is cut off from the others.
const Patience = 15 * time.Second

// Ensure makes sure that every asset of the namespace is there and up to date,
// and returns the namespace's settings. Any number of processes may call it at
// once; one of them works, under the bootstrap lease, and the others wait. A
// process without the right to create streams may call it where nothing is to
// be done.
//
// What may pass is tried again for a while, over a connection that may go and come
// meanwhile: see [Options.Patience]. What the server refuses is returned at once.
func Ensure(ctx context.Context, ns Namespace, pub *publish.Publisher, opts Options) (Settings, error) {
	if err := opts.validate(); err != nil {
		return Settings{}, err
	}
	js, err := pub.JetStream(jetstream.WithDefaultTimeout(requestTime))
	if err != nil {
		return Settings{}, fmt.Errorf("streams: open JetStream: %w", err)
	}
	b := &bootstrap{ns: ns, pub: pub, js: js, opts: opts.withDefaults(pub.Conn())}
	b.config = kv.Open(pub, ns.Bucket(Config), kv.JSON[Settings](), kv.Options{Logger: b.opts.Logger})
	ctx, stop := untilDenied(ctx, ns, pub)
	defer stop()
	err = b.patience().Try(ctx, b.try)
	return b.settings, denied(ctx, err)
}

// patience is how what may pass is tried again, which is all that try does.
func (b *bootstrap) patience() wait.Patience {
	var lacking time.Time // since when no JetStream is reached
	return wait.Patience{
		For: cmp.Or(b.opts.Patience, Patience),
		Passing: func(err error) bool {
			if !errors.As(err, new(absentError)) {
				lacking = time.Time{}
				return transient(err) || errors.Is(err, jetstream.ErrStreamNotFound) // of what has just been there
			}
			if lacking.IsZero() {
				lacking = time.Now()
			}
			return b.opts.Patience > 0 && b.remote() || time.Since(lacking) < linkTime
		},
		Tell: func(err error) {
			b.opts.Logger.Warn("namespace is not there yet: trying again", "namespace", b.ns, "server", where(b.pub), "err", err)
		},
	}
}

// remote reports whether JetStream may be that of other servers than the one that
// is asked.
func (b *bootstrap) remote() bool {
	return b.pub.Domain() != "" || b.pub.Conn().ConnectedClusterName() != ""
}

// errGathering says that a cluster has fewer than three servers by now.
var errGathering = errors.New("streams: the cluster has fewer than three JetStream servers: start the others, or ask for one replica")

// errUnsettled says that assets are missing or old.
var errUnsettled = errors.New("streams: assets are to be made")

// errLeaderless says that nobody would answer the request for the lease.
var errLeaderless = errors.New("streams: the stream of leases has no leader")

type bootstrap struct {
	ns     Namespace
	pub    *publish.Publisher
	js     jetstream.JetStream
	opts   Options
	config *kv.Bucket[Settings]

	settings Settings // once they are known

	gathering time.Time // since when the cluster has too few servers
}

// try looks whether something is to be done, and does it.
func (b *bootstrap) try(ctx context.Context) error {
	if err := checkServer(ctx, b.pub); err != nil {
		return err
	}
	settings, err := b.settled(ctx)
	if errors.Is(err, errUnsettled) {
		settings, err = b.make(ctx)
	}
	if err != nil {
		return err
	}
	b.settings = settings
	return b.opts.Then(ctx)
}

// make makes what is missing or old, and returns the settings.
func (b *bootstrap) make(ctx context.Context) (Settings, error) {
	if b.opts.Existing {
		return Settings{}, fmt.Errorf(`namespace %s does not exist on %s, or not all of it: check --namespace, or start "millrace serve"`, b.ns, where(b.pub))
	}
	if err := b.run(ctx); err != nil {
		return Settings{}, err
	}
	return b.settled(ctx)
}

// settled returns the settings if nothing is to be done. The settings are
// written last, so their version tells.
func (b *bootstrap) settled(ctx context.Context) (Settings, error) {
	reading, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	entry, err := b.config.Get(reading, settingsKey)
	switch {
	case errors.Is(err, kv.ErrNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		return Settings{}, errUnsettled
	case err != nil:
		return Settings{}, fmt.Errorf("streams: read the settings of namespace %s: %w", b.ns, explain(err))
	case entry.Value.Version > Version:
		return Settings{}, b.tooNew(entry.Value.Version)
	case entry.Value.Version < Version:
		return Settings{}, errUnsettled
	}
	if err := checkLease(entry.Value.Lease); err != nil {
		return Settings{}, fmt.Errorf("%w: correct the key %s of bucket %s", err, settingsKey, b.config.Name())
	}
	for _, config := range b.ns.assets() {
		if _, err := b.js.Stream(ctx, config.Name); errors.Is(err, jetstream.ErrStreamNotFound) {
			return Settings{}, errUnsettled
		} else if err != nil {
			return Settings{}, fmt.Errorf("streams: look for stream %s: %w", config.Name, explain(err))
		}
	}
	return entry.Value, nil
}

func (b *bootstrap) tooNew(version int) error {
	return fmt.Errorf("streams: namespace %s was set up by a newer build (assets %d, this build knows %d): upgrade this process",
		b.ns, version, Version)
}

// run makes the assets, or waits until somebody else has.
func (b *bootstrap) run(ctx context.Context) error {
	leases, err := b.leases(ctx)
	if err != nil {
		return err
	}
	replicas, clustered := leases.Config.Replicas, leases.Cluster != nil && leases.Cluster.Name != ""
	return UnderBootstrap(ctx, b.ns, b.pub, b.opts.Holder, func(ctx context.Context) error {
		if _, err := b.settled(ctx); !errors.Is(err, errUnsettled) {
			return err // somebody else was first
		}
		if clustered && replicas == 1 && b.opts.Replicas == 0 {
			b.opts.Logger.WarnContext(ctx, "the cluster has fewer than three JetStream servers: assets are made with one replica", "namespace", b.ns)
		}
		for _, config := range b.ns.assets() {
			if err := b.put(ctx, complete(config, replicas)); err != nil {
				return err
			}
		}
		return b.settle(ctx, clustered)
	})
}

// leases makes the stream of leases, whose replicas all others get. It tries
// three replicas first, unless told otherwise.
func (b *bootstrap) leases(ctx context.Context) (*jetstream.StreamInfo, error) {
	stream, err := b.js.Stream(ctx, b.ns.bucketStream(Leases))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.createLeases(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("streams: create stream %s: %w", b.ns.bucketStream(Leases), explain(err))
	}
	info := stream.CachedInfo()
	if info.Cluster != nil && info.Cluster.Leader == "" {
		return nil, errLeaderless
	}
	return info, nil
}

func (b *bootstrap) createLeases(ctx context.Context) (stream jetstream.Stream, err error) {
	if err := checkTaken(ctx, b.ns, b.pub, b.js); err != nil {
		return nil, err
	}
	tries := []int{3, 1}
	if b.opts.Replicas != 0 {
		tries = []int{b.opts.Replicas}
	}
	for _, replicas := range tries {
		stream, err = b.js.CreateStream(ctx, complete(b.ns.leases(), replicas))
		switch {
		case err == nil:
			b.opts.Logger.InfoContext(ctx, "stream made", "stream", b.ns.bucketStream(Leases), "how", "created", "replicas", replicas)
			return stream, nil
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse): // made by another process, otherwise
			return b.js.Stream(ctx, b.ns.bucketStream(Leases))
		case !tooFewServers(err):
			return nil, err
		case replicas > 1 && b.gathers(err):
			return nil, errGathering
		}
	}
	return nil, fmt.Errorf("%v: use 1 replica, or a cluster of three JetStream servers", err) //nolint:errorlint // wrapped it would be tried again
}

// gathers reports whether it is too early to believe that a cluster has too few
// servers for three replicas.
func (b *bootstrap) gathers(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != publish.NoPeers {
		return false
	}
	if b.gathering.IsZero() {
		b.gathering = time.Now()
	}
	return time.Since(b.gathering) < b.opts.Gather
}

// put creates a stream or brings it up to date. The servers are there, since the
// stream of leases has as many replicas: that one of them is not there just now
// passes.
func (b *bootstrap) put(ctx context.Context, config jetstream.StreamConfig) error {
	stream, err := b.js.Stream(ctx, config.Name)
	how, put := "created", b.js.CreateStream
	switch {
	case err == nil:
		version, _ := strconv.Atoi(stream.CachedInfo().Config.Metadata[versionKey]) // 0 for a stream of nobody's
		if version > Version {
			return b.tooNew(version)
		}
		if version == Version {
			return nil
		}
		how, put = "updated", b.js.UpdateStream
		config = keep(config, stream.CachedInfo().Config)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("streams: look for stream %s: %w", config.Name, explain(err))
	}
	if _, err := put(ctx, config); err != nil {
		return fmt.Errorf("streams: make stream %s: %w", config.Name, explain(err))
	}
	b.opts.Logger.InfoContext(ctx, "stream made", "stream", config.Name, "how", how, "replicas", config.Replicas)
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
	if errors.Is(err, kv.ErrExists) {
		_, err = b.config.Edit(ctx, settingsKey, func(s Settings) (Settings, error) {
			if s.Version >= Version {
				return s, kv.ErrKeep
			}
			s.Version = Version
			return s, nil
		})
	}
	if err != nil {
		return fmt.Errorf("streams: write the settings of namespace %s: %w", b.ns, explain(err))
	}
	return nil
}
